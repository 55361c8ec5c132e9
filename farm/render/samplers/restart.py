"""Restart: Xu et al. 2023 (arXiv:2306.14878)."""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch

from farm.questions import Denoise, Draw, NoiseSource
from farm.render.samplers.sampling import Sampling, Sigmas
from farm.render.schedules import karras_between

RESTART_FROM, RESTART_TO = 0.1, 2.0
"""The interval that is gone through again, between the schedule's nearest sigmas."""


def restart(x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource, *, s_noise: float = 1.0) -> Sampling:
    """Heun's steps, algorithm 2 of Karras et al. 2022; from 20 on some are taken again from fresh noise.

    As A1111 chooses them, see `restart_ways`.
    """
    for step, (sigma, lower, rise) in enumerate(_steps(restart_ways(sigmas))):
        draws = (Draw(noise),) if rise > 0 else ()
        denoised, *fresh = yield Denoise(x, sigma, step), *draws
        slope = (x - denoised) / sigma
        if lower > 0:
            ahead = x + slope * (lower - sigma)
            slope_ahead = (ahead - (yield Denoise(ahead, lower, step))) / lower
            slope = (slope + slope_ahead) / 2
        x = x + slope * (lower - sigma)
        for one in fresh:
            x = x + one * (s_noise * rise)
    return x


def _steps(ways: list[Sigmas]) -> Iterator[tuple[float, float, float]]:
    """Each step's two sigmas, and the standard deviation of the noise that leads from it to the next way."""
    for way, following in pairwise([*ways, ()]):
        *others, (sigma, lower) = pairwise(way)
        yield from ((*one, 0.0) for one in others)
        yield sigma, lower, math.sqrt(following[0] ** 2 - lower**2) if following else 0.0


def restart_ways(sigmas: Sigmas) -> list[Sigmas]:
    """The ways down, one after another; noise leads up to each but the first. n sigmas make n steps in all.

    Below 20 steps it is one way. From 20 on, 9 of the steps go from sigma 2 to 0.1 again, and from 36 on
    twice a quarter of them; then the sigmas between the first and the last above 0 are spaced anew, as
    Karras et al. 2022 do with rho 7, whatever the schedule was.

    So it is in A1111, but in two cases. Where no two sigmas surround the interval, as in a start below it,
    A1111 drops the steps that it set apart; here all sigmas are gone through once. Where the last sigma above
    0 is larger than 0.2, A1111 goes up again from 0; here from that sigma, so that a step costs as ever.
    """
    steps = len(sigmas) - 1
    times = 0 if steps < 20 else 1 if steps < 36 else 2
    if not times:
        return [sigmas]
    again = 9 if times == 1 else steps // 4
    whole = _karras(steps - again * times, sigmas[-2], sigmas[0])
    low, high = _nearest(whole, RESTART_FROM), _nearest(whole, RESTART_TO)
    if low <= high:
        return [sigmas]
    interval = _karras(again + 1, whole[low], whole[high])
    last = (*interval, *whole[low + 1 :], sigmas[-1])
    return [whole[: low + 1], *[interval] * (times - 1), last]


def _nearest(sigmas: Sigmas, wanted: float) -> int:
    return min(range(len(sigmas)), key=lambda index: abs(sigmas[index] - wanted))


def _karras(steps: int, sigma_min: float, sigma_max: float) -> Sigmas:
    return tuple(karras_between(sigma_max, sigma_min, steps).astype(np.float32).tolist())
