"""Classifier-free guidance: a sampler's questions become rows of the network, and rows one answer.

Ho & Salimans 2022 (arXiv:2207.12598); the sum over several conditions is that of A1111's AND.
"""

from collections.abc import Generator, Hashable
from dataclasses import dataclass
from typing import Any, cast

import torch

from farm.render.parameterization import Parameterization
from farm.render.requests import Coroutine, Denoise, Predict, Share, Weights
from farm.render.samplers import Sampling


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """One text that pulls at the picture.

    Attributes:
        key: equal keys have equal states.
        states: text states `(tokens, channels)`.
        coefficient: of its row in the guided output; rows of 0 are not computed.
    """

    key: Hashable
    states: torch.Tensor
    coefficient: float


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where a sampler starts. Every cell that starts here can share its first rows.

    Attributes:
        key: equal keys have equal latents.
        x: the noisy latents handed to the sampler.
    """

    key: Hashable
    x: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Guidance:
    """Answers a sampler's `Denoise` with one row for each condition.

    Attributes:
        weights: whose network to ask.
        model: how that network's numbers are read.
        conditions: with their coefficients, the unconditional one included.
        origin: where the sampler starts.
    """

    weights: Weights
    model: Parameterization
    conditions: tuple[Condition, ...]
    origin: Origin

    def denoise(self, request: Denoise) -> Generator[Any, Any, torch.Tensor]:
        """The denoised latents; rows at the origin are shared, all others are this cell's own."""
        shown = self.model.input(request.x, request.sigma)
        time = self.model.time_at(request.sigma)
        rows = [Predict(self.weights, shown, time, condition.states) for condition in self.conditions]
        if request.x is self.origin.x:
            outputs = yield tuple(
                self._shared(row, condition) for row, condition in zip(rows, self.conditions)
            )
        else:
            outputs = yield tuple(rows)
        return self.model.denoised(request.x, self._combined(outputs), request.sigma)

    def _combined(self, outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        first, *others = zip(outputs, self.conditions)
        combined = first[0] * first[1].coefficient
        for output, condition in others:
            combined = torch.add(combined, output, alpha=condition.coefficient)
        return combined

    def _shared(self, row: Predict, condition: Condition) -> Share:
        key = ("first row", self.weights, self.origin.key, row.time, condition.key)
        return Share(key, lambda _: predict(row))


def predict(row: Predict) -> Coroutine:
    """The recipe of a shared row."""
    return (yield row)


def conditions_for(
    cfg_scale: float, positive: tuple[Hashable, torch.Tensor], negative: tuple[Hashable, torch.Tensor] | None
) -> tuple[Condition, ...]:
    """The rows of uncond + cfg·(cond − uncond) whose coefficient is not zero.

    Args:
        cfg_scale: the guidance scale; 1 needs no unconditional row, 0 no conditional one.
        positive: key and states of the prompt.
        negative: key and states of the negative prompt; may be None at scale 1.
    """
    rows = [Condition(*positive, coefficient=cfg_scale)]
    if negative is not None:
        rows.insert(0, Condition(*negative, coefficient=1 - cfg_scale))
    return tuple(row for row in rows if row.coefficient != 0)


def guided(sampler: Sampling, guidance: Guidance) -> Generator[Any, Any, torch.Tensor]:
    """Runs a sampler, answering its `Denoise` itself and passing every other request on."""
    answer: Any = None
    while True:
        try:
            request = sampler.send(answer)
        except StopIteration as finished:
            return cast(torch.Tensor, finished.value)
        if isinstance(request, Denoise):
            answer = yield from guidance.denoise(request)
        else:
            answer = yield request
