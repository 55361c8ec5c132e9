"""Noise along a Brownian path, for samplers that solve a stochastic differential equation.

Such a sampler may ask for the noise between any two sigmas; the same path answers, however fine the steps, so
that more steps refine a picture instead of making another.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
import torchsde
from torchsde._brownian import brownian_interval

from farm.render.device import onto

Randn = Callable[[tuple[int, ...], int], torch.Tensor]
"""Standard normal numbers of a shape, from a seed."""


DIGITS = 6
"""To which torchsde's tree rounds sigmas."""


class BrownianNoise:
    """The increments of a Brownian path over sigma, scaled to variance 1, for one image.

    It is k-diffusion's `BrownianTreeNoiseSampler` over torchsde's tree (Li et al. 2020, arXiv:2001.01328) on
    the CPU. The tree is grown with the first draw.

    Args:
        seed: of the path.
        shape: of the latents `(4, height/8, width/8)`.
        sigmas: the falling sigmas of the sampler; the path spans the positive ones.
        device: where the noise is needed.
        randn: what draws the numbers; PyTorch's generator on the CPU if not given.
    """

    def __init__(
        self,
        seed: int,
        shape: tuple[int, ...],
        sigmas: tuple[float, ...],
        device: torch.device,
        randn: Randn | None = None,
    ) -> None:
        self._seed = seed
        self._shape = shape
        self._ends = min(sigma for sigma in sigmas if sigma > 0), max(sigmas)
        self._device = device
        self._randn = randn
        self._tree: torchsde.BrownianTree | None = None

    def draw(self, sigma: float | None = None, lower: float | None = None) -> torch.Tensor:
        """Standard normal noise for the step from `sigma` to `lower`, on the device.

        Raises:
            ValueError: the step is not named.
        """
        if sigma is None or lower is None:
            raise ValueError("a Brownian path is asked for the noise between two sigmas")
        length = math.copysign(math.sqrt(abs(lower - sigma)), lower - sigma)
        with drawing_by(self._randn):
            self._tree = self._tree or self._grown()
            increment: torch.Tensor = self._tree(*sorted((self._within(sigma), self._within(lower))))
        return onto(increment / length, self._device)

    def _within(self, sigma: float) -> float:
        """The tree rounds its ends, and warns of what lies beyond them."""
        low, high = (round(end, DIGITS) for end in self._ends)
        return min(max(sigma, low), high)

    def _grown(self) -> torchsde.BrownianTree:
        low, high = self._ends
        return torchsde.BrownianTree(low, torch.zeros(self._shape), high, entropy=self._seed)


_randn: ContextVar[Randn | None] = ContextVar("_randn", default=None)
_torchsde_randn = brownian_interval._randn


def _randn_here(size: tuple[int, ...], dtype: Any, device: Any, seed: int) -> torch.Tensor:
    drawing = _randn.get()
    if drawing is None:
        drawn: torch.Tensor = _torchsde_randn(size, dtype, device, seed)
        return drawn
    return onto(drawing(size, int(seed)).to(dtype), torch.device(device))


# torchsde cannot be told where its numbers come from; for everybody else nothing changes by this.
brownian_interval._randn = _randn_here


def on_the_cpu(dtype: torch.dtype) -> Randn:
    """Torchsde's own numbers as drawn on a CPU, wherever they are needed: the device does not show."""
    return lambda shape, seed: cast(torch.Tensor, _torchsde_randn(shape, dtype, torch.device("cpu"), seed))


@contextmanager
def drawing_by(randn: Randn | None) -> Iterator[None]:
    """Lets torchsde, in this thread, take its numbers from `randn`."""
    token = _randn.set(randn)
    try:
        yield
    finally:
        _randn.reset(token)
