"""A classifier that reads the attributes from a picture; it only measures, and is not shipped."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attributes import LEVELS
from .dataset import Pictures, label_counts
from .training import Draw, Plan, Training

WIDTHS = (24, 48, 96, 128)
HIDDEN = 192
NOISE = 0.15
BLUR_ODDS = 0.3


class Judge(nn.Module):
    """Strided convolutions, and one linear head for each attribute."""

    def __init__(self, picture: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.GELU()]
        cells = (picture // 2 ** len(WIDTHS)) ** 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * cells, HIDDEN), nn.GELU())
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, count) for count in label_counts())

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Scores of each attribute's values for pictures (batch, 3, height, width) in −1 … 1."""
        hidden = self.body(pictures)
        return [head(hidden) for head in self.heads]

    @torch.no_grad()
    def read(self, pictures: Tensor) -> Tensor:
        """The most likely value of each attribute, (batch, attributes)."""
        return torch.stack([scores.argmax(-1) for scores in self(pictures)], dim=1)


def train_judge(folder: Path, pictures: Pictures, plan: Plan) -> Judge:
    """Train on drawn pictures, disturbed so that small artefacts do not mislead it."""
    torch.manual_seed(plan.seed)
    judge = Judge(pictures.pixels.shape[1])
    training = Training("judge", folder, judge, plan)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        index = draw.index(len(pictures), plan.batch)
        images = pictures.images(index)
        softened = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
        soft = torch.rand((plan.batch, 1, 1, 1), generator=draw.torch) < BLUR_ODDS
        images = torch.where(soft, (images + softened) / 2, images)
        amount = NOISE * torch.rand((plan.batch, 1, 1, 1), generator=draw.torch)
        scores = judge(images + amount * draw.normal(tuple(images.shape)))
        labels = pictures.labels[index]
        losses = [F.cross_entropy(head, labels[:, k]) for k, head in enumerate(scores)]
        return torch.stack(losses).mean(), {}

    training.run(loss)
    return judge


def agreement(read: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of right values for each attribute; the accessory's colour only where one is worn.

    Args:
        read: (batch, attributes), as `Judge.read` gives it.
        labels: The same shape, what was asked for.
    """
    names = list(LEVELS)
    right = (read == labels).float()
    worn = labels[:, names.index("accessory")] != LEVELS["accessory"].index("none")
    rows = {name: right[worn, k] if name == "tint" else right[:, k] for k, name in enumerate(names)}
    return {name: float(values.mean()) if len(values) else float("nan") for name, values in rows.items()}
