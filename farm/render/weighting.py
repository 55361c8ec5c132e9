"""What the weights of a prompt do to the states of a chunk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Apply = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Makes states of states `(positions, channels)`, factors `(positions, 1)`, states of the empty chunk."""


@dataclass(frozen=True, slots=True)
class Weighting:
    """A rule.

    Attributes:
        apply: does it.
        needs_empty: whether it asks for the states of the empty chunk.
    """

    apply: Apply
    needs_empty: bool = False


def _original(states: torch.Tensor, factors: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
    """A1111's `Original`: multiplied, then the mean of all states restored."""
    exact = states.float()
    multiplied = exact * factors
    return (multiplied * (exact.mean() / multiplied.mean())).to(states.dtype)


def _no_norm(states: torch.Tensor, factors: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
    """A1111's `No norm`: multiplied."""
    return (states.float() * factors).to(states.dtype)


def _comfyui(states: torch.Tensor, factors: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
    """ComfyUI's (comfy/sd1_clip.py): away from the empty prompt. compel does so for weights above 1."""
    nothing = empty.float()
    return torch.lerp(nothing, states.float(), factors.expand_as(nothing)).to(states.dtype)


WEIGHTINGS: Mapping[str, Weighting] = {
    "original": Weighting(_original),
    "no norm": Weighting(_no_norm),
    "comfyui": Weighting(_comfyui, needs_empty=True),
}
"""By the setting's name; `ignore` and texts without weights need none."""
