"""The DPM++ family: DPM-Solver++, Lu et al. 2022 (arXiv:2211.01095), and its stochastic forms."""

import math
from itertools import pairwise
from typing import Literal

import torch

from farm.questions import Denoise, Draw, NoiseSource
from farm.render.samplers.sampling import Sampling, Sigmas, ancestral_step


def dpmpp_2s_ancestral(
    x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource, *, eta: float = 1.0, s_noise: float = 1.0
) -> Sampling:
    """DPM-Solver++(2S), algorithm 1, to less noise than wanted, and fresh noise up to what is wanted."""
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        if lower == 0:
            x = yield Denoise(x, sigma, step)
            return x
        sigma_down, sigma_up = ancestral_step(sigma, lower, eta)
        denoised, fresh = yield Denoise(x, sigma, step), Draw(noise)
        if sigma_down > 0:  # it is 0 if eta is large
            middle = math.sqrt(sigma * sigma_down)
            denoised = yield Denoise(towards(denoised, x, middle / sigma), middle, step)
        x = towards(denoised, x, sigma_down / sigma) + fresh * (s_noise * sigma_up)
    return x


def dpmpp_2m(x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """DPM-Solver++(2M), Lu et al. 2022 (arXiv:2211.01095), algorithm 2, over t = −log sigma."""
    previous, previous_h = None, 0.0
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        denoised = yield Denoise(x, sigma, step)
        if lower == 0:
            x = denoised
            return x
        h = math.log(sigma / lower)
        aimed = denoised
        if previous is not None:
            r = previous_h / h
            aimed = denoised * (1 + 1 / (2 * r)) - previous * (1 / (2 * r))
        x = towards(aimed, x, lower / sigma)
        previous, previous_h = denoised, h
    return x


def dpmpp_sde(
    x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource, *, eta: float = 1.0, s_noise: float = 1.0
) -> Sampling:
    """DPM-Solver++(2S) with noise in both halves of a step, of one Brownian path (k-diffusion).

    The noise up to the middle of a step, and that of the whole step.
    """
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        if lower == 0:
            x = yield Denoise(x, sigma, step)
            return x
        middle = math.sqrt(sigma * lower)
        sigma_down, sigma_up = ancestral_step(sigma, middle, eta)
        denoised, fresh = yield Denoise(x, sigma, step), Draw(noise, sigma, middle)
        halfway = towards(denoised, x, sigma_down / sigma) + fresh * (s_noise * sigma_up)
        sigma_down, sigma_up = ancestral_step(sigma, lower, eta)
        denoised, fresh = yield Denoise(halfway, middle, step), Draw(noise, sigma, lower)
        x = towards(denoised, x, sigma_down / sigma) + fresh * (s_noise * sigma_up)
    return x


def dpmpp_2m_sde(
    x: torch.Tensor,
    sigmas: Sigmas,
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Sampling:
    """SDE-DPM-Solver++(2M), over t = −log sigma; eta 1 is the paper's SDE, 0 is DPM-Solver++(2M)."""
    previous, previous_h = None, 0.0
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        if lower == 0:
            x = yield Denoise(x, sigma, step)
            return x
        h = math.log(sigma / lower)
        denoised, fresh = yield Denoise(x, sigma, step), Draw(noise, sigma, lower)
        x = towards(denoised, x, math.exp(-h * (1 + eta)))
        if previous is not None:
            weight = SECOND_ORDER[solver_type](h * (1 + eta))
            x = x + (denoised - previous) * (weight * h / previous_h)
        x = x + fresh * (s_noise * sde_noise(lower, h, eta))
        previous, previous_h = denoised, h
    return x


def dpmpp_3m_sde(
    x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource, *, eta: float = 1.0, s_noise: float = 1.0
) -> Sampling:
    """SDE-DPM-Solver++ of the third order (k-diffusion), over t = −log sigma."""
    denoised_1 = denoised_2 = None
    h_1 = h_2 = 0.0
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        if lower == 0:
            x = yield Denoise(x, sigma, step)
            return x
        h = math.log(sigma / lower)
        h_eta = h * (1 + eta)
        denoised, fresh = yield Denoise(x, sigma, step), Draw(noise, sigma, lower)
        x = towards(denoised, x, math.exp(-h_eta))
        if denoised_1 is not None:
            d1 = (denoised - denoised_1) * (h / h_1)
            if denoised_2 is not None:
                r0, r1 = h_1 / h, h_2 / h
                d2 = (d1 - (denoised_1 - denoised_2) / r1) / (r0 + r1)
                d1 = d1 + d2 * r0
                x = x - d2 * phi_3(h_eta)
            x = x + d1 * phi_2(h_eta)
        x = x + fresh * (s_noise * sde_noise(lower, h, eta))
        denoised_1, denoised_2, h_1, h_2 = denoised, denoised_1, h, h_1
    return x


def towards(denoised: torch.Tensor, x: torch.Tensor, left: float) -> torch.Tensor:
    """From `x` to `denoised` until so much of the way is left: exact for a `denoised` that stands still."""
    return x * left + denoised * (1 - left)


def sde_noise(lower: float, h: float, eta: float) -> float:
    """Standard deviation of the noise that a step over h down to `lower` adds."""
    return lower * math.sqrt(-math.expm1(-2 * eta * h))


def phi_2(h: float) -> float:
    """The second of the functions that exponential integrators weigh their differences with, times h."""
    return math.expm1(-h) / h + 1


def phi_3(h: float) -> float:
    """The third, times h."""
    return phi_2(h) / h - 0.5


SECOND_ORDER = {"midpoint": lambda h: -0.5 * math.expm1(-h), "heun": phi_2}
"""Weight of the difference to the step before, by the solver's type."""
