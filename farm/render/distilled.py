"""Networks that are asked only at some of the timesteps of training: latent consistency models."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from farm.render.noise_levels import stride_of
from farm.render.parameterization import Parameterization


@dataclass(frozen=True, eq=False)
class Distilled(Parameterization):
    """Of latent consistency models, which know but a few of the timesteps of the model they came of.

    As A1111's wrapper of LCM: the network is told of the nearest of these, in log sigma, and the noise
    levels between them are interpolated. Luo et al. 2023 (arXiv:2310.04378).

    Attributes:
        model: of all training timesteps; `log_sigmas` are its own.
        stride: between two of the timesteps that are left, of which the last of training is one.
    """

    model: Parameterization
    stride: int

    @cached_property
    def _known(self) -> np.ndarray:
        """The logarithms of the noise levels that the network was distilled at, rising."""
        return self.log_sigmas[self.stride - 1 :: self.stride]

    @cached_property
    def _times(self) -> np.ndarray:
        return np.array([self.model.time_at(sigma) for sigma in np.exp(self._known)])

    @property
    def sigma_min(self) -> float:
        """The smallest noise level that the network was distilled at."""
        return float(np.exp(self._known[0]))

    def time_at(self, sigma: float) -> float:
        """The time of the nearest noise level."""
        return float(self._times[np.abs(self._known - math.log(sigma)).argmin()])

    def sigma_at(self, time: np.ndarray) -> np.ndarray:
        """The noise levels at times, interpolated in the logarithm between those that the network knows."""
        return np.asarray(np.exp(np.interp(time, self._times, self._known)))

    def _evenly(self, high: float, low: float, count: int) -> np.ndarray:
        """Between the very sigmas, which `time_at` would round."""
        first, last = np.interp(np.log([high, low]), self._known, self._times)
        return self.sigma_at(np.linspace(first, last, count))

    def divisor(self, sigma: float) -> float:
        """As of the model that it came of."""
        return self.model.divisor(sigma)

    def denoised(self, x: torch.Tensor, output: torch.Tensor, sigma: float) -> torch.Tensor:
        """As of the model that it came of."""
        return self.model.denoised(x, output, sigma)


def distilled(model: Parameterization, timesteps: int) -> Parameterization:
    """A model that is asked only at so many of its training timesteps; 0 is at all of them."""
    if timesteps == 0:
        return model
    return Distilled(model.log_sigmas, model, stride_of(timesteps, model.log_sigmas.tolist()))
