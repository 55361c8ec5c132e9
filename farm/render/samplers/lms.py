"""LMS: linear multistep."""

import math

import torch

from farm.questions import NoiseSource
from farm.render.samplers.sampling import Sampling, Sigmas, slope_at

LMS_ORDER = 4


def lms(x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Linear multistep (Adams–Bashforth) over uneven sigmas, up to four slopes back."""
    slopes: list[torch.Tensor] = []
    for step, sigma in enumerate(sigmas[:-1]):
        slopes = [(yield from slope_at(x, sigma, step)), *slopes][:LMS_ORDER]
        for slope, weight in zip(slopes, multistep_weights(sigmas, step, len(slopes)), strict=True):
            x = x + slope * weight
    return x


def multistep_weights(sigmas: Sigmas, step: int, order: int) -> list[float]:
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
