"""What a network's numbers mean: how its input is scaled, its time counted, its output read.

All samplers see latents as picture + sigma·noise (variance exploding), whatever the network was trained on.
Karras et al. 2022 (arXiv:2206.00364), table 1, in the discrete form of k-diffusion's wrappers.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from farm.errors import CellFailed
from farm.render.noise_levels import MOST_NOISE, log_sigmas_of, not_supported, shift_of, shifted
from farm.scheduler_names import predicted


@dataclass(frozen=True, eq=False)
class Parameterization(ABC):
    """How a network's numbers are read.

    Attributes:
        log_sigmas: natural logarithms of the training noise levels, rising, float64.
    """

    log_sigmas: np.ndarray

    @cached_property
    def sigmas(self) -> np.ndarray:
        """The training noise levels, rising, float64."""
        return np.asarray(np.exp(self.log_sigmas))

    @property
    def sigma_min(self) -> float:
        """The smallest training noise level."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """The largest training noise level."""
        return float(self.sigmas[-1])

    @abstractmethod
    def time_at(self, sigma: float) -> float:
        """What the network is told of a noise level."""

    @abstractmethod
    def sigma_at(self, time: np.ndarray) -> np.ndarray:
        """The noise levels that these times tell of."""

    @abstractmethod
    def divisor(self, sigma: float) -> float:
        """What the latents are divided by before the network sees them."""

    @abstractmethod
    def denoised(self, x: torch.Tensor, output: torch.Tensor, sigma: float) -> torch.Tensor:
        """The clean latents that the network's output points at."""

    def input(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """What the network is shown for latents `x`."""
        return x / self.divisor(sigma)

    def initial(self, noise: torch.Tensor, sigma: float, unit_variance: bool = False) -> torch.Tensor:
        """What a sampler starts from: pure noise.

        Args:
            noise: standard normal.
            sigma: its standard deviation.
            unit_variance: scale it so that the network is shown the noise as it is.
        """
        return noise * (self.divisor(sigma) if unit_variance else sigma)

    def evenly(self, high: float, low: float, count: int) -> np.ndarray:
        """Noise levels at even distances of training, from `high` exactly; both within the model's range."""
        high, low = (min(max(sigma, self.sigma_min), self.sigma_max) for sigma in (high, low))
        sigmas = self._evenly(high, low, count)
        sigmas[0] = high
        return sigmas

    def _evenly(self, high: float, low: float, count: int) -> np.ndarray:
        return self.sigma_at(np.linspace(self.time_at(high), self.time_at(low), count))


class Noise(Parameterization):
    """Of networks that predict the noise (eps), at discrete noise levels. Their time is the level's index."""

    @cached_property
    def _times(self) -> np.ndarray:
        return np.arange(len(self.log_sigmas), dtype=np.float64)

    def time_at(self, sigma: float) -> float:
        """The training timestep of a noise level, with its fraction."""
        return float(np.interp(np.log(sigma), self.log_sigmas, self._times))

    def sigma_at(self, time: np.ndarray) -> np.ndarray:
        """The noise level at training timesteps, fractions interpolated in the logarithm."""
        return np.asarray(np.exp(np.interp(time, self._times, self.log_sigmas)))

    def divisor(self, sigma: float) -> float:
        """Which leaves unit variance, if the picture has it."""
        return math.sqrt(sigma**2 + 1)

    def denoised(self, x: torch.Tensor, output: torch.Tensor, sigma: float) -> torch.Tensor:
        """The latents without the noise."""
        return x - sigma * output


class Velocity(Noise):
    """Of networks that predict v = (noise − sigma·picture) / √(sigma² + 1).

    Salimans & Ho 2022 (arXiv:2202.00512), appendix D; as k-diffusion's DiscreteVDDPMDenoiser.
    """

    def denoised(self, x: torch.Tensor, output: torch.Tensor, sigma: float) -> torch.Tensor:
        """The latents without the noise, from both combined."""
        return x / (sigma**2 + 1) - output * (sigma / math.sqrt(sigma**2 + 1))


@dataclass(frozen=True, eq=False)
class Flow(Parameterization):
    """Of networks that predict noise − picture, on the straight line (1 − s)·picture + s·noise.

    Rectified flow: Liu et al. 2022 (arXiv:2209.03003). In our scale sigma is s / (1 − s).

    Attributes:
        shift: how far the even steps of training lean to noise: s becomes shift·s / (1 + (shift − 1)·s).
            Esser et al. 2024 (arXiv:2403.03206), section 5.3.2.
    """

    shift: float = 1.0

    def time_at(self, sigma: float) -> float:
        """s, in as many parts as there are training timesteps."""
        return len(self.log_sigmas) * sigma / (1 + sigma)

    def sigma_at(self, time: np.ndarray) -> np.ndarray:
        """The noise level at times, at most the model's largest."""
        return _from_line(np.asarray(time) / len(self.log_sigmas))

    def divisor(self, sigma: float) -> float:
        """Which leads onto the straight line."""
        return 1 + sigma

    def denoised(self, x: torch.Tensor, output: torch.Tensor, sigma: float) -> torch.Tensor:
        """The picture's end of the line."""
        return (x - sigma * output) / (1 + sigma)

    def _evenly(self, high: float, low: float, count: int) -> np.ndarray:
        ends = (1.0 if sigma >= self.sigma_max else sigma / (1 + sigma) for sigma in (high, low))
        first, last = (shifted(s, 1 / self.shift) for s in ends)
        return _from_line(shifted(np.linspace(first, last, count), self.shift))


def _from_line(s: np.ndarray) -> np.ndarray:
    s = np.minimum(s, MOST_NOISE)
    return np.asarray(s / (1 - s))


def parameterization_of(
    scheduler_config: Mapping[str, Any], zero_terminal_snr: bool | None = None
) -> Parameterization:
    """Reads a diffusers `scheduler_config.json`.

    Args:
        scheduler_config: the file's content.
        zero_terminal_snr: whether training ended in pure noise; None is as the file says. A flow always does.

    Raises:
        CellFailed: for a prediction type or noise levels that are not supported.
    """
    log_sigmas = np.array(log_sigmas_of(scheduler_config, zero_terminal_snr))
    match predicted(scheduler_config):
        case "epsilon":
            return Noise(log_sigmas)
        case "v_prediction":
            return Velocity(log_sigmas)
        case "flow_prediction":
            return Flow(log_sigmas, shift_of(scheduler_config))
        case other:
            supported = "epsilon, v_prediction and flow_prediction are"
            raise CellFailed(not_supported("prediction_type", other, supported))
