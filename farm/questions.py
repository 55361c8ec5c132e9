"""What a sampler asks for while it draws. Without torch, so that plugins with samplers load fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class NoiseSource(Protocol):
    """Where a sampler's noise comes from; it belongs to the cell, not to the batch."""

    def draw(self, sigma: float | None = None, lower: float | None = None) -> torch.Tensor:
        """Standard normal noise of the latents' shape `(4, height/8, width/8)`.

        Args:
            sigma: where the step begins, for sources that follow a Brownian path.
            lower: where it ends; both or none are given.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Denoise:
    """Answered by the guidance: the denoised latents, of the shape of `x`.

    Attributes:
        x: latents `(4, height/8, width/8)` with noise of standard deviation `sigma`.
        sigma: noise level.
        step: index of the sampling step, from 0.
    """

    x: torch.Tensor
    sigma: float
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """Answered by the guidance: what the network itself says, with guidance, of the shape of `input`.

    Attributes:
        input: as the network is shown it `(4, height/8, width/8)`.
        time: training timestep, fractions allowed.
        step: index of the sampling step, from 0.
    """

    input: torch.Tensor
    time: float
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """The next tensor of a cell's own noise.

    Asked for together with a `Denoise` it is drawn while the network is busy.

    Attributes:
        source: where from.
        sigma: where the step begins, for sources that follow a Brownian path.
        lower: where it ends.
    """

    source: NoiseSource
    sigma: float | None = None
    lower: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A number that was computed of latents, answered by a `float`.

    The device goes on with other cells until the host has it; a sampler that called `float` itself would let
    it run empty.

    Attributes:
        value: of one element, on the device.
    """

    value: torch.Tensor
