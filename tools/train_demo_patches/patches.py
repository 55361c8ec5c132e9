"""The patches that ship, each trained and written to its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from farm.weights.checkpoint import Networks
from farm.weights.loading import load_checkpoint

from .embedding import save_embedding, train_embedding
from .examples import make_examples
from .hypernetwork import save_hypernetwork, train_hypernetwork
from .lora import save_lora, train_lora
from .recipe import Recipe
from .styles import duchess, ink, night

MODEL = "tiny-cats"
LORA, EMBEDDING, HYPERNETWORK = "tiny-ink", "tiny-duchess", "tiny-night"
"""Their names: a prompt that is for another model does not say them by chance."""


@dataclass(frozen=True)
class Workshop:
    """A recipe, a folder for unfinished things, the models folder with the model, and that for results."""

    recipe: Recipe
    work: Path
    models: Path
    out: Path

    @cached_property
    def networks(self) -> Networks:
        """Of the model."""
        return load_checkpoint(self.models / "Stable-diffusion" / MODEL, torch.device("cpu"), torch.float32)

    def place(self, folder: str, file: str) -> Path:
        """Where a file goes; its folder is made."""
        path = self.out / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def lora(shop: Workshop) -> Path:
    """Train the LoRA."""
    recipe = shop.recipe
    examples = make_examples(shop.networks, ink, *recipe.lora_pictures)
    trained = train_lora(shop.work, shop.networks, examples, recipe.rank, recipe.lora, LORA)
    path = shop.place("Lora", f"{LORA}.safetensors")
    about = {
        "ss_sd_model_name": MODEL,
        "ss_output_name": LORA,
        "ss_steps": recipe.lora.steps,
        "ss_learning_rate": recipe.lora.rate,
        "ss_seed": recipe.lora.seed,
        "ss_num_train_images": recipe.lora_pictures[0],
        "modelspec.title": LORA,
        "modelspec.license": "Apache-2.0",
        "modelspec.description": "Ink on white paper. It needs no words in the prompt.",
    }
    save_lora(trained, path, about)
    return path


def embedding(shop: Workshop) -> Path:
    """Train the embedding."""
    recipe = shop.recipe
    trained = train_embedding(
        shop.work,
        shop.networks,
        duchess,
        recipe.embedding_pictures,
        recipe.vectors,
        recipe.word,
        recipe.embedding,
        EMBEDDING,
    )
    path = shop.place("embeddings", f"{EMBEDDING}.pt")
    save_embedding(trained, path, EMBEDDING, MODEL, recipe.embedding.steps)
    return path


def hypernetwork(shop: Workshop) -> Path:
    """Train the hypernetwork."""
    recipe = shop.recipe
    examples = make_examples(shop.networks, night, *recipe.hypernetwork_pictures)
    trained = train_hypernetwork(
        shop.work, shop.networks, examples, recipe.widths, recipe.hypernetwork, HYPERNETWORK
    )
    path = shop.place("hypernetworks", f"{HYPERNETWORK}.pt")
    save_hypernetwork(trained, path, HYPERNETWORK, MODEL, recipe.hypernetwork.steps)
    return path


PATCHES: dict[str, Callable[[Workshop], Path]] = {
    "lora": lora,
    "embedding": embedding,
    "hypernetwork": hypernetwork,
}
"""Each by what it is."""
