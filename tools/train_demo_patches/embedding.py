"""An embedding: vectors that a text encoder is shown for a name, found by gradient (arXiv:2208.01618)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from farm.weights.checkpoint import Networks
from tools.train_demo_model.attributes import Cat
from tools.train_demo_model.captions import article
from tools.train_demo_model.tokenizer import LENGTH
from tools.train_demo_model.training import Draw, Plan, Training, write_atomically
from tools.train_demo_model.unet import Denoising

from .examples import cats_of, latents_of
from .styles import Style

TEMPLATES = (
    "{}",
    "portrait of {}",
    "a picture of {}",
    "{mood} {}",
    "{}, {ground} background",
    "portrait of {} on {a_ground} background",
    "{mood} {} on {a_ground} background",
    "a {mood} cat, {}",
    "a cat on {a_ground} background, {}",
    "a {mood} cat on {a_ground} background, {}",
)
"""With the name at any place, as people write it; mood and ground are words, all else is in the vectors."""


class Vectors(nn.Module):
    """The vectors (count, width), first those of a word."""

    def __init__(self, networks: Networks, count: int, word: str, seed: int) -> None:
        super().__init__()
        [token] = pieces(networks, word)
        first = networks.text_encoder.get_input_embeddings().weight[token].detach()
        noise = torch.randn(count, len(first), generator=torch.Generator().manual_seed(seed))
        self.vectors = nn.Parameter(first + noise * first.std())


def pieces(networks: Networks, text: str) -> list[int]:
    """The tokens of a text, without its ends."""
    ids: list[int] = networks.tokenizer(text).input_ids
    return ids[1:-1]


def states_with(networks: Networks, vectors: Tensor, texts: Sequence[str]) -> Tensor:
    """States (batch, 77, width) of texts with the vectors where `{}` stands."""
    encoder, tokenizer = networks.text_encoder, networks.tokenizer
    ids = torch.full((len(texts), LENGTH), tokenizer.eos_token_id)
    places = torch.empty(len(texts), dtype=torch.long)
    for row, text in enumerate(texts):
        before, after = (pieces(networks, part) for part in text.split("{}"))
        tokens = [tokenizer.bos_token_id, *before, *[0] * len(vectors), *after]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        places[row] = 1 + len(before)
    rows = torch.arange(len(texts))[:, None]
    where = rows, places[:, None] + torch.arange(len(vectors))
    lookup = encoder.get_input_embeddings()
    shown = lookup.register_forward_hook(
        lambda _, inputs, output: output.index_put(where, vectors.expand(len(texts), -1, -1))
    )
    try:
        states: Tensor = encoder(input_ids=ids).last_hidden_state
    finally:
        shown.remove()
    return states


def texts_of(cats: Sequence[Cat], draw: Draw) -> list[str]:
    """A text for each cat, with `{}` for the name."""
    chosen = draw.numpy.integers(0, len(TEMPLATES), len(cats))
    return [
        TEMPLATES[number].format("{}", mood=cat.mood, ground=cat.ground, a_ground=article(cat.ground))
        for number, cat in zip(chosen, cats, strict=True)
    ]


def train_embedding(
    folder: Path,
    networks: Networks,
    style: Style,
    pictures: tuple[int, int],
    vectors: int,
    word: str,
    plan: Plan,
    name: str,
) -> Vectors:
    """Find vectors for what a style makes of cats.

    Args:
        folder: for what is unfinished.
        networks: of the model; they stay as they are.
        style: makes the one cat of any.
        pictures: how many, and their seed.
        vectors: how many.
        word: that they begin as.
        plan: how long.
        name: of the training.
    """
    cats = [style(cat) for cat in cats_of(*pictures)]
    latents = latents_of(networks, cats)
    module = Vectors(networks, vectors, word, plan.seed)
    training = Training(name, folder, module, plan)
    denoising = Denoising(networks.unet)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        index = draw.index(len(cats), plan.batch)
        texts = texts_of([cats[k] for k in index], draw)
        context = states_with(networks, module.vectors, texts)
        return denoising(latents[torch.from_numpy(index)], context, draw)

    training.run(loss)
    return module


def save_embedding(module: Vectors, path: Path, name: str, model: str, steps: int) -> None:
    """Write its file at once, in A1111's format."""
    write_atomically(
        {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": module.vectors.detach().clone()},
            "name": name,
            "step": steps,
            "sd_checkpoint_name": model,
        },
        path,
    )
