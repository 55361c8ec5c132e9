"""The samplers, as generators that read like their papers.

Each takes the noisy latents `x` of shape `(4, height/8, width/8)`, the falling `sigmas` that end in 0 and the
cell's own `noise`; it yields `Denoise` and `Draw` requests and returns the latents. History lives in local
variables; all scalars are host numbers, so that nothing waits for the device. Ports of the algorithms of
k-diffusion (`k_diffusion.sampling.sample_*`), which define what A1111's names mean.
"""

import math
from collections.abc import Callable, Generator
from itertools import pairwise

import torch

from farm.render.requests import Denoise, Draw, NoiseSource

Sampling = Generator[Denoise | Draw, torch.Tensor, torch.Tensor]
LMS_ORDER = 4
SamplerFunction = Callable[[torch.Tensor, tuple[float, ...], NoiseSource], Sampling]


def ancestral_step(sigma: float, lower: float, eta: float = 1.0) -> tuple[float, float]:
    """Splits a step into a deterministic part, down to `sigma_down`, and noise of `sigma_up`.

    The two add up to `lower` in variance.
    """
    sigma_up = min(lower, eta * math.sqrt(lower**2 * (sigma**2 - lower**2) / sigma**2))
    return math.sqrt(lower**2 - sigma_up**2), sigma_up


def euler(x: torch.Tensor, sigmas: tuple[float, ...], noise: NoiseSource) -> Sampling:
    """Karras et al. 2022 (arXiv:2206.00364), algorithm 2 without churn and without its correction."""
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        slope = (x - (yield Denoise(x, sigma, step))) / sigma
        x = x + slope * (lower - sigma)
    return x


def euler_ancestral(x: torch.Tensor, sigmas: tuple[float, ...], noise: NoiseSource) -> Sampling:
    """Euler steps to less noise than wanted, and fresh noise up to what is wanted."""
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        sigma_down, sigma_up = ancestral_step(sigma, lower)
        slope = (x - (yield Denoise(x, sigma, step))) / sigma
        x = x + slope * (sigma_down - sigma)
        if lower > 0:
            x = x + (yield Draw(noise)) * sigma_up
    return x


def heun(x: torch.Tensor, sigmas: tuple[float, ...], noise: NoiseSource) -> Sampling:
    """Karras et al. 2022 (arXiv:2206.00364), algorithm 2 without churn: the trapezoidal rule."""
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        slope = (x - (yield Denoise(x, sigma, step))) / sigma
        if lower > 0:
            ahead = x + slope * (lower - sigma)
            slope_ahead = (ahead - (yield Denoise(ahead, lower, step))) / lower
            slope = (slope + slope_ahead) / 2
        x = x + slope * (lower - sigma)
    return x


def dpm_2(x: torch.Tensor, sigmas: tuple[float, ...], noise: NoiseSource) -> Sampling:
    """DPM-Solver-2 in the form of k-diffusion: the slope is taken at the geometric mean of the sigmas."""
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        slope = (x - (yield Denoise(x, sigma, step))) / sigma
        if lower > 0:
            middle = math.sqrt(sigma * lower)
            halfway = x + slope * (middle - sigma)
            slope = (halfway - (yield Denoise(halfway, middle, step))) / middle
        x = x + slope * (lower - sigma)
    return x


def lms(x: torch.Tensor, sigmas: tuple[float, ...], noise: NoiseSource) -> Sampling:
    """Linear multistep (Adams–Bashforth) over uneven sigmas, up to four slopes back."""
    slopes: list[torch.Tensor] = []
    for step, sigma in enumerate(sigmas[:-1]):
        slopes = [(x - (yield Denoise(x, sigma, step))) / sigma, *slopes][:LMS_ORDER]
        for slope, weight in zip(slopes, multistep_weights(sigmas, step, len(slopes)), strict=True):
            x = x + slope * weight
    return x


def multistep_weights(sigmas: tuple[float, ...], step: int, order: int) -> list[float]:
    """Integrals over the step of the Lagrange polynomials through the last `order` sigmas, newest first.

    By Gauss's rule with two nodes, which is exact for cubics, so for an order of up to 4.
    """
    points = [sigmas[step - back] for back in range(order)]
    middle, half = (sigmas[step + 1] + sigmas[step]) / 2, (sigmas[step + 1] - sigmas[step]) / 2
    nodes = (middle - half / math.sqrt(3), middle + half / math.sqrt(3))
    return [half * sum(_lagrange(points, chosen, node) for node in nodes) for chosen in range(order)]


def _lagrange(points: list[float], chosen: int, at: float) -> float:
    others = [point for index, point in enumerate(points) if index != chosen]
    return math.prod((at - other) / (points[chosen] - other) for other in others)


def dpmpp_2m(x: torch.Tensor, sigmas: tuple[float, ...], noise: NoiseSource) -> Sampling:
    """DPM-Solver++(2M), Lu et al. 2022 (arXiv:2211.01095), algorithm 2, over t = −log sigma."""
    previous, previous_h = None, 0.0
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        denoised = yield Denoise(x, sigma, step)
        if lower == 0:
            return denoised
        h = math.log(sigma / lower)
        aimed = denoised
        if previous is not None:
            r = previous_h / h
            aimed = denoised * (1 + 1 / (2 * r)) - previous * (1 / (2 * r))
        x = x * (lower / sigma) - aimed * math.expm1(-h)
        previous, previous_h = denoised, h
    return x


SAMPLERS: dict[str, SamplerFunction] = {
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpm_2": dpm_2,
    "lms": lms,
    "dpmpp_2m": dpmpp_2m,
}
"""By `farm.sampling.Sampler.algorithm`."""
