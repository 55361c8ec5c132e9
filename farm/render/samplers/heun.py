"""Heun: the trapezoidal rule."""

import math
from itertools import pairwise

import torch

from farm.questions import NoiseSource
from farm.render.samplers.sampling import Sampling, Sigmas, churned, slope_at


def heun(
    x: torch.Tensor,
    sigmas: Sigmas,
    noise: NoiseSource,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Sampling:
    """Karras et al. 2022 (arXiv:2206.00364), algorithm 2: the trapezoidal rule."""
    per_step, within = s_churn / (len(sigmas) - 1), (s_tmin, s_tmax)
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        x, sigma = yield from churned(x, sigma, noise, per_step, within, s_noise)
        slope = yield from slope_at(x, sigma, step)
        if lower > 0:
            slope_ahead = yield from slope_at(x + slope * (lower - sigma), lower, step)
            slope = (slope + slope_ahead) / 2
        x = x + slope * (lower - sigma)
    return x
