"""Noise schedules: the sigmas that a sampler walks down. Computed in float64, rounded to float32 once.

Rounding once makes equal sigmas equal bits, so that first rows can be shared between schedules.
"""

from collections.abc import Callable

import numpy as np

from farm.render.parameterization import Parameterization

Sigmas = tuple[float, ...]
Schedule = Callable[[Parameterization, int], "np.ndarray"]


def uniform(model: Parameterization, steps: int) -> np.ndarray:
    """k-diffusion's default: training timesteps evenly spaced from the last to the first."""
    return model.sigma_at(np.linspace(model.last_time, 0, steps))


def karras(model: Parameterization, steps: int, rho: float = 7.0) -> np.ndarray:
    """Karras et al. 2022 (arXiv:2206.00364), equation 5, over the model's whole range of sigmas."""
    ramp = np.linspace(0, 1, steps)
    low, high = model.sigma_min ** (1 / rho), model.sigma_max ** (1 / rho)
    return np.asarray((high + ramp * (low - high)) ** rho)


SCHEDULES: dict[str, Schedule] = {"uniform": uniform, "karras": karras}


def sigmas_for(schedule: str, model: Parameterization, steps: int, discard_penultimate: bool) -> Sigmas:
    """The sigmas of `steps` steps, falling, with the final 0: `steps + 1` numbers.

    Args:
        schedule: a row of SCHEDULES.
        model: whose range and training noise levels to use.
        steps: sampling steps, at least 1.
        discard_penultimate: schedule one step more and drop the sigma before the last, as A1111 does
            for the DPM2 family (the last positive sigma is dropped, not the 0).
    """
    count = steps + 1 if discard_penultimate else steps
    sigmas = [float(sigma) for sigma in SCHEDULES[schedule](model, count).astype(np.float32)]
    return (*(sigmas[:-1] if discard_penultimate else sigmas), 0.0)
