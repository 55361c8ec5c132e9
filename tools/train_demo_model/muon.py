"""The Muon optimizer: momentum whose matrices are made orthogonal before each step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ADAM_LIKE_SIZE = 0.2
MOMENTUM = 0.95


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix with singular values near one, by Newton-Schulz iterations.

    Args:
        matrix: (rows, columns).
    """
    a, b, c = QUINTIC
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / float(x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Keller Jordan's Muon for weights of two and more dimensions (convolutions as matrices).

    Steps are as large as AdamW's at the same learning rate (Liu et al., "Muon is Scalable for
    LLM Training", 2025). Put in AdamW's place while the autoencoder trained, it gained as many dB in a
    hundred steps as AdamW in the four hundred before.
    """

    def __init__(self, weights: Iterable[nn.Parameter], rate: float, weight_decay: float) -> None:
        super().__init__(weights, {"lr": rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight once; a closure is not used."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group["lr"], group["weight_decay"])

    def _move(self, p: nn.Parameter, rate: float, weight_decay: float) -> None:
        state: dict[str, Any] = self.state[p]
        gradient = p.grad.reshape(len(p), -1)  # type: ignore[union-attr]  # step() has looked
        momentum = state.setdefault("momentum", torch.zeros_like(gradient))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonal(gradient.lerp(momentum, MOMENTUM))
        size = ADAM_LIKE_SIZE * max(update.shape) ** 0.5
        p.mul_(1 - rate * weight_decay)
        p.sub_(update.reshape(p.shape), alpha=rate * size)


def split_weights(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained weights that Muon should move, and the rest (norms, biases, first and last layers)."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if p.ndim >= 2 and min(p.shape[:2]) > 8 and not _is_edge(name)]
    chosen = {id(p) for p in inner}
    return inner, [p for _, p in named if id(p) not in chosen]


def _is_edge(name: str) -> bool:
    return any(part in name for part in ("embedding", "conv_in", "conv_out", "reader", "heads"))
