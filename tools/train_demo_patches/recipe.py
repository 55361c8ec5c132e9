"""How much of everything."""

from __future__ import annotations

from dataclasses import dataclass

from tools.train_demo_model.training import Plan


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training makes.

    Attributes:
        lora: its training.
        lora_pictures: how many it is trained on, and their seed: none of the model's own.
        rank: of the LoRA.
        embedding: its training.
        embedding_pictures: likewise.
        vectors: of the embedding.
        word: that these begin as.
        hypernetwork: its training.
        hypernetwork_pictures: likewise.
        widths: of what the hypernetwork changes: the picture at two resolutions, and the text.
    """

    lora: Plan = Plan(steps=900, batch=16, rate=2e-3, decay=0.6, average=0.98)
    lora_pictures: tuple[int, int] = (1_000, 31)
    rank: int = 8
    embedding: Plan = Plan(steps=400, batch=16, rate=1e-2, decay=0.6, average=0.98, weight_decay=0.0)
    embedding_pictures: tuple[int, int] = (500, 33)
    vectors: int = 3
    word: str = "cat"
    hypernetwork: Plan = Plan(steps=800, batch=16, rate=4e-3, decay=0.6, average=0.98)
    hypernetwork_pictures: tuple[int, int] = (1_000, 32)
    widths: tuple[int, ...] = (64, 128)


def toy_recipe() -> Recipe:
    """A few steps of everything, for tests: the files are right, and do nothing to be seen."""
    few, pictures = Plan(steps=3, batch=4, rate=1e-2, warmup=1), (8, 31)
    return Recipe(
        lora=few,
        lora_pictures=pictures,
        embedding=few,
        embedding_pictures=pictures,
        hypernetwork=few,
        hypernetwork_pictures=pictures,
    )
