"""Pictures and texts to train on, as latents and states computed beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from farm.weights.checkpoint import Networks
from tools.train_demo_model.attributes import Cat
from tools.train_demo_model.captions import careless_caption
from tools.train_demo_model.clip import embed_texts
from tools.train_demo_model.dataset import cat_at
from tools.train_demo_model.drawing import draw_cat
from tools.train_demo_model.training import Draw
from tools.train_demo_model.unet import WRONG_WORDS, Conditions, context_of

from .styles import Style

ENCODED_AT_ONCE = 32
CAPTIONS = 3


@dataclass(frozen=True)
class Examples:
    """Drawings in a style, with captions of what they would show without it.

    Attributes:
        latents: scaled, (count, 4, height/8, width/8).
        conditions: texts of each.
    """

    latents: Tensor
    conditions: Conditions

    def batch(self, size: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Latents, and one text's states for each (batch, 77, width), sometimes those of no text."""
        index = draw.index(len(self.latents), size)
        return self.latents[torch.from_numpy(index)], context_of(self.conditions, index, draw)


def make_examples(networks: Networks, style: Style, count: int, seed: int) -> Examples:
    """Draw, caption and encode; captions are as careless as those of the model's own training."""
    cats, rng = cats_of(count, seed), np.random.default_rng(seed)
    texts = [careless_caption(cat, WRONG_WORDS, rng) for cat in cats for _ in range(CAPTIONS)]
    states = embed_texts(networks.text_encoder, networks.tokenizer, texts)
    empty = embed_texts(networks.text_encoder, networks.tokenizer, [""])[0].float()
    table: NDArray[np.float16] = states.reshape(count, CAPTIONS, *states.shape[1:]).numpy()
    return Examples(latents_of(networks, [style(cat) for cat in cats]), Conditions(table, empty))


def cats_of(count: int, seed: int) -> list[Cat]:
    """The first cats of a seed."""
    return [cat_at(seed, index) for index in range(count)]


@torch.no_grad()
def latents_of(networks: Networks, cats: list[Cat]) -> Tensor:
    """Scaled mean latents of drawings, (count, 4, height/8, width/8)."""
    parts: list[Tensor] = []
    for start in range(0, len(cats), ENCODED_AT_ONCE):
        drawn = np.stack([draw_cat(cat)[0] for cat in cats[start : start + ENCODED_AT_ONCE]])
        pictures = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1
        parts.append(networks.vae.encode(pictures).latent_dist.mean)
    scale: float = networks.vae.config.scaling_factor
    return torch.cat(parts) * scale
