"""Euler and Euler a: one question a step."""

import math
from itertools import pairwise

import torch

from farm.questions import Denoise, Draw, NoiseSource
from farm.render.samplers.sampling import Sampling, Sigmas, ancestral_step, churned, slope_at


def euler(
    x: torch.Tensor,
    sigmas: Sigmas,
    noise: NoiseSource,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Sampling:
    """Karras et al. 2022 (arXiv:2206.00364), algorithm 2 without its correction."""
    per_step, within = s_churn / (len(sigmas) - 1), (s_tmin, s_tmax)
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        x, sigma = yield from churned(x, sigma, noise, per_step, within, s_noise)
        slope = yield from slope_at(x, sigma, step)
        x = x + slope * (lower - sigma)
    return x


def euler_ancestral(
    x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource, *, eta: float = 1.0, s_noise: float = 1.0
) -> Sampling:
    """Euler steps to less noise than wanted, and fresh noise up to what is wanted."""
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        if lower == 0:
            x = yield Denoise(x, sigma, step)
            return x
        sigma_down, sigma_up = ancestral_step(sigma, lower, eta)
        denoised, fresh = yield Denoise(x, sigma, step), Draw(noise)
        slope = (x - denoised) / sigma
        x = x + slope * (sigma_down - sigma) + fresh * (s_noise * sigma_up)
    return x
