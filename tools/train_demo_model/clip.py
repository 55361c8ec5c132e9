"""A small CLIP; its text tower becomes the model's text encoder, its image tower scores pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from .attributes import LEVELS
from .captions import caption
from .dataset import Pictures, label_counts
from .tokenizer import LENGTH
from .training import Draw, Plan, Training

IMAGE_MEAN = (0.5, 0.5, 0.5)
IMAGE_STD = (0.5, 0.5, 0.5)
ATTRIBUTE_WEIGHT = 0.5
HEAD_SCALE = 10.0


@dataclass(frozen=True)
class ClipSize:
    """The two towers; both are as wide as the embedding they share."""

    width: int = 128
    heads: int = 4
    text_layers: int = 3
    image_layers: int = 3
    text_feedforward: int = 512
    image_feedforward: int = 384
    patch: int = 8
    picture: int = 64


def build_clip(size: ClipSize, tokenizer: CLIPTokenizer, seed: int) -> CLIPModel:
    """A fresh CLIP for the tokenizer."""
    torch.manual_seed(seed)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "intermediate_size": size.text_feedforward,
        "num_hidden_layers": size.text_layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": LENGTH,
        "projection_dim": size.width,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    vision = {
        "hidden_size": size.width,
        "intermediate_size": size.image_feedforward,
        "num_hidden_layers": size.image_layers,
        "num_attention_heads": size.heads,
        "image_size": size.picture,
        "patch_size": size.patch,
        "projection_dim": size.width,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=size.width))


class ClipTraining(nn.Module):
    """CLIP, and heads that read the attributes from either embedding.

    The heads' loss pulls the words apart that pairs alone separate slowly (moods, accessories).
    """

    def __init__(self, clip: CLIPModel, width: int) -> None:
        super().__init__()
        self.clip = clip
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in label_counts())

    def attribute_loss(self, embeds: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy of the attributes read from unit embeddings (batch, width)."""
        losses = [
            F.cross_entropy(head(embeds * HEAD_SCALE), labels[:, k]) for k, head in enumerate(self.heads)
        ]
        return torch.stack(losses).mean()

    def read(self, embeds: Tensor) -> Tensor:
        """The most likely value of each attribute, (batch, attributes)."""
        return torch.stack([head(embeds * HEAD_SCALE).argmax(-1) for head in self.heads], dim=1)


def tokens(tokenizer: CLIPTokenizer, texts: list[str], length: int | None = None) -> Tensor:
    """Token ids (batch, length); without a length, as long as the longest text.

    The text tower is causal, so what follows the end token does not change what is pooled.
    """
    padding = "longest" if length is None else "max_length"
    encoded = tokenizer(
        texts, padding=padding, truncation=True, max_length=length or LENGTH, return_tensors="pt"
    )
    ids: Tensor = encoded.input_ids
    return ids


def train_clip(
    folder: Path, pictures: Pictures, tokenizer: CLIPTokenizer, size: ClipSize, plan: Plan
) -> ClipTraining:
    """Train both towers on pairs of pictures and captions."""
    both = ClipTraining(build_clip(size, tokenizer, plan.seed), size.width)
    training = Training("clip", folder, both, plan)
    target = torch.arange(plan.batch)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        index = draw.index(len(pictures), plan.batch)
        ids = tokens(tokenizer, [caption(pictures.cats[k], draw.numpy) for k in index])
        out = both.clip(input_ids=ids, pixel_values=pictures.images(index), attention_mask=None)
        logits = out.logits_per_image
        pairs = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        labels = pictures.labels[index]
        seen = both.attribute_loss(out.image_embeds, labels)
        told = both.attribute_loss(out.text_embeds, labels)
        hits = float((logits.argmax(1) == target).float().mean())
        total = pairs + ATTRIBUTE_WEIGHT * (seen + told) * len(LEVELS) / 2
        figures = {"pairs": float(pairs.detach()), "hits": hits}
        return total, {**figures, "seen": float(seen.detach()), "told": float(told.detach())}

    training.run(loss)
    return both


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """The text encoder of the diffusion model, with the CLIP's own weights."""
    config: Any = clip.config.text_config
    tower = CLIPTextModel(config)
    inner = getattr(tower, "text_model", tower)
    source = getattr(clip.text_model, "text_model", clip.text_model)
    inner.load_state_dict(source.state_dict())
    tower.requires_grad_(False)
    tower.eval()
    return tower


@torch.no_grad()
def embed_texts(tower: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str], batch: int = 256) -> Tensor:
    """Hidden states of every text, (count, 77, width)."""
    parts = []
    for start in range(0, len(texts), batch):
        ids = tokens(tokenizer, texts[start : start + batch], LENGTH)
        parts.append(tower(input_ids=ids).last_hidden_state.half())
    return torch.cat(parts)
