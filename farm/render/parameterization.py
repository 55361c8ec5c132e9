"""What a network's numbers mean: how its input is scaled, its time counted, its output read.

Karras et al. 2022 (arXiv:2206.00364), table 1, in the discrete form of k-diffusion's wrappers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from farm.errors import CellFailed


@dataclass(frozen=True, eq=False)
class Parameterization:
    """A network that was trained to predict the noise (eps) at discrete noise levels.

    Attributes:
        log_sigmas: natural logarithms of the training noise levels, rising, float64.
    """

    log_sigmas: np.ndarray

    @property
    def last_time(self) -> int:
        """The training timestep with the most noise."""
        return len(self.log_sigmas) - 1

    @property
    def sigma_min(self) -> float:
        """The smallest training noise level."""
        return float(np.exp(self.log_sigmas[0]))

    @property
    def sigma_max(self) -> float:
        """The largest training noise level."""
        return float(np.exp(self.log_sigmas[-1]))

    def sigma_at(self, time: np.ndarray) -> np.ndarray:
        """The noise level at training timesteps, fractions interpolated in the logarithm."""
        return np.asarray(np.exp(np.interp(time, np.arange(len(self.log_sigmas)), self.log_sigmas)))

    def time_at(self, sigma: float) -> float:
        """The training timestep of a noise level, with its fraction."""
        return float(np.interp(np.log(sigma), self.log_sigmas, np.arange(len(self.log_sigmas))))

    def initial(self, noise: torch.Tensor, sigma: float) -> torch.Tensor:
        """What a sampler starts from: pure noise of standard deviation `sigma`."""
        return noise * sigma

    def input(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """What the network is shown for latents `x`: scaled to unit variance."""
        return x / float(np.sqrt(sigma**2 + 1))

    def denoised(self, x: torch.Tensor, output: torch.Tensor, sigma: float) -> torch.Tensor:
        """The clean latents that the network's output points at."""
        return x - sigma * output


DEFAULTS = {"beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 1000, "beta_schedule": "linear"}
"""Of the schedulers of diffusers, for what a `scheduler_config.json` does not say."""


def parameterization_of(scheduler_config: dict[str, Any]) -> Parameterization:
    """Reads a diffusers `scheduler_config.json`.

    Raises:
        CellFailed: for a prediction type or a beta schedule that is not supported.
    """
    config = DEFAULTS | scheduler_config
    _demand(config, "prediction_type", "epsilon")
    _demand(config, "rescale_betas_zero_snr", False)
    alphas_cumprod = np.cumprod(1 - _betas(config))
    return Parameterization(log_sigmas=0.5 * np.log((1 - alphas_cumprod) / alphas_cumprod))


def _demand(config: dict[str, Any], name: str, supported: Any) -> None:
    if (value := config.get(name, supported)) != supported:
        raise CellFailed(f"{name} {value!r} of the checkpoint is not supported; {supported!r} is")


def _betas(config: dict[str, Any]) -> np.ndarray:
    if config.get("trained_betas"):
        return np.asarray(config["trained_betas"], dtype=np.float64)
    start, end, count = config["beta_start"], config["beta_end"], config["num_train_timesteps"]
    match config["beta_schedule"]:
        case "scaled_linear":
            return np.asarray(np.linspace(start**0.5, end**0.5, count) ** 2)
        case "linear":
            return np.linspace(start, end, count)
        case other:
            raise CellFailed(
                f"beta_schedule {other!r} of the checkpoint is not supported; scaled_linear and linear are"
            )
