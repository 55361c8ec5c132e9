"""UniPC: Zhao et al. 2023 (arXiv:2302.04867)."""

import math
from itertools import pairwise

import numpy as np
import torch

from farm.questions import Denoise, NoiseSource
from farm.render.samplers.sampling import Sampling, Sigmas, unit_variance

UNIPC_ORDER = 3

Point = tuple[float, torch.Tensor]
"""A sigma, and the denoised latents that were found there."""


def unipc(x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """UniC corrects what UniP predicts; with data prediction and B(h) = h, over t = −log sigma.

    Of order 3, lower at both ends, as A1111 and diffusers do. UniC asks nothing of its own: it uses the
    answer that UniP needs anyway, so that the last step is not corrected. A1111 refuses less than 3 steps,
    and between timesteps it interpolates log alpha where we do log sigma: 0.05 % of sigma above timestep 10.
    """
    start, order, steps = x, 0, len(sigmas) - 1
    points: list[Point] = []
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        here = (sigma, (yield Denoise(x, sigma, step)))
        if points:
            x = _moved(start, sigma, [*points[:order], here])
        start, points = x, [here, *points][:UNIPC_ORDER]
        order = min(UNIPC_ORDER, step + 1, steps - step)
        x = _moved(start, lower, points[:order])
    return unit_variance(x, sigmas[-1])


def _moved(x: torch.Tensor, lower: float, points: list[Point]) -> torch.Tensor:
    """UniP and UniC alike: `x` at the first point's sigma, moved to `lower` through what all points say."""
    (sigma, denoised), *others = points
    if lower == 0:
        return denoised
    h = math.log(sigma / lower)
    ratios = [math.log(sigma / other) / h for other, _ in others]
    moved = x * (lower / sigma) - denoised * math.expm1(-h)
    for weight, ratio, (_, found) in zip(unipc_weights(ratios, h), ratios, others, strict=True):
        moved = moved + (found - denoised) * (h * weight / ratio)
    return moved


def unipc_weights(ratios: list[float], h: float) -> list[float]:
    """Solves the paper's R(h)·a·B(h) = φ(h) for data prediction and B(h) = h.

    Args:
        ratios: of the other points' distances in t to the step's length `h`.
        h: the step's length in t = −log sigma.
    """
    if len(ratios) <= 1:  # 1/2 keeps the order whatever h is, and is the authors' choice
        return [0.5] * len(ratios)
    powers = np.vander(ratios, increasing=True).T
    wanted, phi = [], math.expm1(-h) / -h - 1
    for power in range(1, len(ratios) + 1):
        wanted.append(phi * math.factorial(power) / -h)
        phi = phi / -h - 1 / math.factorial(power + 1)
    return [float(weight) for weight in np.linalg.solve(powers, np.array(wanted))]
