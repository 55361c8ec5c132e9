"""The training loop every stage shares: seeded, resumable, with a running average of the weights."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]  # ships no types

from .muon import Muon, split_weights

SAVE_EVERY_SECONDS = 60.0
LOG_EVERY_STEPS = 50
GRADIENT_CLIP = 1.0


@dataclass(frozen=True)
class Plan:
    """How one stage trains.

    The learning rate warms up, stays, and falls as a cosine over the last `decay` share of the
    steps; so a stage stopped early can be resumed with a smaller `steps` and still ends well.
    """

    steps: int
    batch: int
    rate: float
    warmup: int = 100
    decay: float = 0.5
    average: float = 0.998
    weight_decay: float = 0.01
    seed: int = 1

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        start = self.steps * (1 - self.decay)
        fall = min(max((step - start) / max(self.steps - start, 1), 0.0), 1.0)
        return (
            self.rate
            * min((step + 1) / self.warmup, 1.0)
            * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * fall)))
        )


@dataclass(frozen=True)
class Draw:
    """The randomness of one step; it depends on the plan's seed and the step alone."""

    step: int
    numpy: np.random.Generator
    torch: torch.Generator

    def index(self, count: int, batch: int) -> NDArray[np.int64]:
        """Positions of a batch in a data set."""
        return self.numpy.integers(0, count, batch)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.torch)


Loss = Callable[[Draw], tuple[Tensor, dict[str, float]]]
"""One step's loss, and figures to log."""


def draw_for(seed: int, step: int) -> Draw:
    """The randomness of a step."""
    return Draw(
        step, np.random.default_rng((seed, step)), torch.Generator().manual_seed(seed * 1_000_003 + step)
    )


def write_atomically(value: Any, path: Path) -> None:
    """Save with torch so that a kill leaves either the old file or the new one."""
    fresh = path.with_suffix(".tmp")
    torch.save(value, fresh)
    os.replace(fresh, path)


def averaged_state(folder: Path, name: str) -> dict[str, Tensor]:
    """The averaged weights in a stage's checkpoint."""
    state: dict[str, Tensor] = torch.load(folder / f"{name}.pt", weights_only=True)["average"]
    return state


def spent(folder: Path, name: str) -> tuple[int, float]:
    """How many steps and seconds a stage has trained, interruptions left out."""
    path = folder / f"{name}.pt"
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, weights_only=True)
    return int(saved["step"]), float(saved["seconds"])


class Training:
    """A module in training, with what must survive a kill: weights, average, optimizer, step, time."""

    def __init__(self, name: str, folder: Path, module: nn.Module, plan: Plan) -> None:
        self.name, self.folder, self.module, self.plan = name, folder, module, plan
        self.weights = {key: p for key, p in module.named_parameters() if p.requires_grad}
        self.average = {key: p.detach().clone() for key, p in self.weights.items()}
        matrices, rest = split_weights(module)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=plan.rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay)
        ]
        if matrices:
            self.optimizers.append(Muon(matrices, plan.rate, plan.weight_decay))
        self.step = 0
        self.seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / f"{name}.pt").exists():
            self._resume(torch.load(folder / f"{name}.pt", weights_only=True))

    def _resume(self, saved: dict[str, Any]) -> None:
        self.module.load_state_dict(saved["module"], strict=False)
        self.average = saved["average"]
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.seconds = saved["step"], saved["seconds"]

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "module": {key: p.detach() for key, p in self.weights.items()},
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        write_atomically(state, self.folder / f"{self.name}.pt")

    def run(self, loss: Loss) -> None:
        """Train up to the plan's last step, then leave the averaged weights in the module."""
        bar = tqdm(total=self.plan.steps, initial=self.step, desc=self.name, mininterval=5)
        started = saved = time.monotonic()
        before = self.seconds
        self.module.train()
        while self.step < self.plan.steps:
            figures = self._advance(loss)
            bar.update()
            now = time.monotonic()
            self.seconds = before + now - started
            if self.step % LOG_EVERY_STEPS == 0:
                self._log(figures)
                bar.set_postfix({key: f"{value:.4f}" for key, value in figures.items()}, refresh=False)
            if now - saved > SAVE_EVERY_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()
        bar.close()
        self.module.load_state_dict(self.average, strict=False)
        self.module.eval()

    def _advance(self, loss: Loss) -> dict[str, float]:
        """One optimizer step."""
        value, figures = loss(draw_for(self.plan.seed, self.step))
        self.module.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(list(self.weights.values()), GRADIENT_CLIP)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.plan.rate_at(self.step)
            optimizer.step()
        self.step += 1
        keep = min(self.plan.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, p in self.weights.items():
                self.average[key].lerp_(p.detach(), 1 - keep)
        return {"loss": float(value.detach()), **figures}

    def _log(self, figures: dict[str, float]) -> None:
        line = {"step": self.step, "seconds": round(self.seconds), **figures}
        with (self.folder / f"{self.name}.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
