"""Noise schedules: the sigmas that a sampler walks down. Computed in float64, rounded to float32 once.

Rounding once makes equal sigmas equal bits, so that first rows can be shared between schedules; for the same
reason each begins with the largest sigma itself and not with what its formula makes of it.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from scipy.special import betaincinv

from farm.cell import Settings
from farm.counting import TRAINING_TIMESTEPS, ddim_stride
from farm.errors import CellFailed
from farm.render.noise_levels import sigma_range
from farm.render.parameterization import Parameterization
from farm.sampling import Sampler, Schedule

Sigmas = tuple[float, ...]
ScheduleFunction = Callable[..., Sequence[float] | np.ndarray]
"""Called with the model, the steps and, by name, the settings among the schedule's options.

Gives the positive sigmas, falling.
"""


def uniform(model: Parameterization, steps: int, *, sigma_min: float, sigma_max: float) -> np.ndarray:
    """k-diffusion's default, ComfyUI's `normal`: training timesteps evenly spaced, the last one first."""
    return model.evenly(sigma_max, sigma_min, steps)


def sgm_uniform(model: Parameterization, steps: int, *, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Stability's generative-models: as `uniform` with a step more, and the last left out."""
    return model.evenly(sigma_max, sigma_min, steps + 1)[:-1]


def karras(
    model: Parameterization, steps: int, *, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> np.ndarray:
    """Karras et al. 2022 (arXiv:2206.00364), equation 5."""
    return karras_between(sigma_max, sigma_min, steps, rho)


def karras_between(sigma_max: float, sigma_min: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """As `karras`, for a part of the way."""
    sigmas = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps) ** rho
    sigmas[0] = sigma_max
    return np.asarray(sigmas)


def exponential(model: Parameterization, steps: int, *, sigma_min: float, sigma_max: float) -> np.ndarray:
    """k-diffusion's `get_sigmas_exponential`: logarithms of sigma evenly spaced."""
    return np.geomspace(sigma_max, sigma_min, steps)  # whose ends are exact


def beta(model: Parameterization, steps: int, *, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Lee et al. 2024 (arXiv:2407.12173): quantiles of the beta distribution with alpha = beta = 0.6.

    As A1111 and diffusers have it: of sigma, where the paper and ComfyUI space timesteps so.
    """
    sigmas = sigma_min + betaincinv(0.6, 0.6, np.linspace(1, 0, steps)) * (sigma_max - sigma_min)
    sigmas[0] = sigma_max
    return np.asarray(sigmas)


def simple(model: Parameterization, steps: int) -> np.ndarray:
    """ComfyUI: every so-many-th training sigma, from the last."""
    stride = len(model.sigmas) / steps
    return model.sigmas[[-1 - int(step * stride) for step in range(steps)]]


def ddim(model: Parameterization, steps: int) -> np.ndarray:
    """CompVis: training timesteps 1, 1 + stride, …, downwards."""
    return model.sigmas[1 :: ddim_stride(min(steps, TRAINING_TIMESTEPS))][::-1]


SCHEDULES: dict[str, ScheduleFunction] = {
    "uniform": uniform,
    "karras": karras,
    "exponential": exponential,
    "sgm_uniform": sgm_uniform,
    "simple": simple,
    "beta": beta,
    "ddim": ddim,
}
"""By `farm.sampling.Schedule.function`."""


def sigmas_for(settings: Settings, sampler: Sampler, schedule: Schedule, model: Parameterization) -> Sigmas:
    """The sigmas of the sampling steps, falling, with the final one.

    Args:
        settings: resolved.
        sampler: the row of `settings.sampler`.
        schedule: the row of `settings.schedule`.
        model: whose range and training noise levels to use.

    Raises:
        CellFailed: the range does not fit the model, or a schedule gives sigmas that do not fall.
    """
    discard = sampler.discards(settings.discard_next_to_last_sigma)
    low, high = sigma_range(settings, schedule, model.sigma_min, model.sigma_max)
    given = {"sigma_min": low, "sigma_max": high, "rho": settings.rho}
    function = SCHEDULES[schedule.function] if isinstance(schedule.function, str) else schedule.function
    made = function(model, settings.steps + discard, **{name: given[name] for name in schedule.options})
    sigmas = np.asarray(made, dtype=np.float64).astype(np.float32)
    _check(sigmas, 1 + discard, settings, schedule)
    positive = sigmas.tolist()[: -discard or None]
    smallest = float(np.float32(model.sigma_min))
    return (*positive, smallest if sampler.ends_at_sigma_min and positive[-1] > smallest else 0.0)


def _check(sigmas: np.ndarray, least: int, settings: Settings, schedule: Schedule) -> None:
    """All must be between 0 and the one before; and there must be some."""
    where = f"schedule {schedule.name} at {settings.steps} steps gives"
    if sigmas.ndim != 1 or len(sigmas) < least:
        raise CellFailed(f"{where} sigmas of shape {sigmas.shape}; at least {least} in a row are needed")
    for place, (before, sigma) in enumerate(pairwise([math.inf, *sigmas.tolist()])):
        if not 0 < sigma < before:
            after = f" after {before:g}" if place else ""
            raise CellFailed(f"{where} sigma {sigma:g}{after}; finite, positive, falling ones are allowed")
