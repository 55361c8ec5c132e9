"""DPM2, DPM2 a, DPM fast and DPM adaptive: DPM-Solver, Lu et al. 2022 (arXiv:2206.00927)."""

import math
from collections.abc import Generator
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from farm.errors import CellFailed
from farm.questions import Denoise, Draw, NoiseSource, Read
from farm.render.broken import Broken, Fault
from farm.render.samplers.sampling import Question, Sampling, Sigmas, ancestral_step, churned, slope_at

Solving = Generator[Question | tuple[Question, ...], Any, tuple[torch.Tensor, torch.Tensor]]
"""Returns the latents at the end of a step twice: by the method of one order less, and by its own."""


def dpm_2(
    x: torch.Tensor,
    sigmas: Sigmas,
    noise: NoiseSource,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Sampling:
    """DPM-Solver-2 in the form of k-diffusion: the slope is taken at the geometric mean of the sigmas."""
    per_step, within = s_churn / (len(sigmas) - 1), (s_tmin, s_tmax)
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        x, sigma = yield from churned(x, sigma, noise, per_step, within, s_noise)
        slope = yield from slope_at(x, sigma, step)
        if lower > 0:
            middle = math.sqrt(sigma * lower)
            slope = yield from slope_at(x + slope * (middle - sigma), middle, step)
        x = x + slope * (lower - sigma)
    return x


def dpm_2_ancestral(
    x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource, *, eta: float = 1.0, s_noise: float = 1.0
) -> Sampling:
    """DPM2's steps to less noise than wanted, and fresh noise up to what is wanted.

    As in k-diffusion no noise is added after a step to none at all, which a large eta makes early ones.
    """
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        sigma_down, sigma_up = ancestral_step(sigma, lower, eta)
        slope = yield from slope_at(x, sigma, step)
        if sigma_down == 0:
            x = x - slope * sigma
            continue
        middle = math.sqrt(sigma * sigma_down)
        halfway = x + slope * (middle - sigma)
        denoised, fresh = yield Denoise(halfway, middle, step), Draw(noise)
        slope = (halfway - denoised) / middle
        x = x + slope * (sigma_down - sigma) + fresh * (s_noise * sigma_up)
    return x


def dpm_fast(
    x: torch.Tensor,
    sigmas: Sigmas,
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    sigma_min: float | None = None,
) -> Sampling:
    """DPM-Solver-fast: steps of order 3, evenly spaced in log sigma, and what is left over in one or two.

    There are as many evaluations as steps in `sigmas`, of which only the first and the last positive one
    count: DPM fast spaces its own. `Denoise.step` counts the evaluations.

    Args:
        x: noisy latents `(4, height/8, width/8)`.
        sigmas: falling, with the final 0.
        noise: the cell's own.
        eta: how much noise is added.
        s_noise: its factor.
        sigma_min: where to end; None is the last positive sigma.
    """
    steps, sigma_min = len(sigmas) - 1, sigmas[-2] if sigma_min is None else sigma_min
    orders = [3] * (steps // 3 - 1) + [2, 1] if steps % 3 == 0 else [3] * (steps // 3) + [steps % 3]
    levels = np.exp(np.linspace(math.log(sigmas[0]), math.log(sigma_min), len(orders) + 1)).tolist()
    levels[0], levels[-1] = sigmas[0], sigma_min
    asked = 0
    for order, (sigma, lower) in zip(orders, pairwise(levels), strict=True):
        sigma_down, sigma_up = _down_to(sigma_min, sigma, lower, eta)
        denoised, fresh = yield Denoise(x, sigma, asked), Draw(noise)
        slope = (x - denoised) / sigma
        _, x = yield from SOLVERS[order](x, slope, sigma, sigma_down, asked + 1)
        x = x + fresh * (s_noise * sigma_up)
        asked += order
    return x


def dpm_adaptive(
    x: torch.Tensor,
    sigmas: Sigmas,
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    sigma_min: float | None = None,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
) -> Sampling:
    """DPM-Solver-12 or -23: steps as long as two orders agree; a PID controller sets their length.

    Of `sigmas` only the first and the last positive one count. The error estimate is read back from the
    device, once a step. `Denoise.step` counts the evaluations.

    Args:
        x: noisy latents `(4, height/8, width/8)`.
        sigmas: falling, with the final 0.
        noise: the cell's own.
        eta: how much noise is added.
        s_noise: its factor.
        sigma_min: where to end; None is the last positive sigma.
        order: 2 or 3.
        rtol: of the latents, how far the two orders may lie apart.
        atol: the same, for small latents.
        h_init: length of the first step in log sigma.
        pcoeff: proportional part of the controller.
        icoeff: integral part.
        dcoeff: derivative part.
        accept_safety: a step is taken again if the controller would shorten it to less than so much of it.

    Raises:
        Broken: the latents are no numbers any more.
        CellFailed: there is no end.
    """
    sigma, sigma_min = sigmas[0], sigmas[-2] if sigma_min is None else sigma_min
    shrinking = 1.5 if eta else order  # the power of a step's length that its error falls with
    powers = tuple(c / shrinking for c in (pcoeff + icoeff + dcoeff, -(pcoeff + 2 * dcoeff), dcoeff))
    h, previous, asked, accepted = h_init, x, 0, True
    precise: tuple[float, ...] = ()
    while math.log(sigma / sigma_min) > NEAR:
        if asked > MOST_EVALUATIONS:
            raise CellFailed(f"DPM adaptive is not done after {asked} evaluations, at sigma {sigma:.4g}")
        if accepted:  # else the slope and the noise are those of the step that is taken again
            denoised, fresh = yield Denoise(x, sigma, asked), Draw(noise)
            slope, asked = (x - denoised) / sigma, asked + 1
        lower = max(sigma_min, sigma * math.exp(-h))
        sigma_down, sigma_up = _down_to(sigma_min, sigma, lower, eta)
        low, high = yield from SOLVERS[order](x, slope, sigma, sigma_down, asked)
        asked += order - 1
        inverse = 1 / ((yield from _error(low, high, previous, rtol, atol)) + TINY)
        precise = (inverse, *(precise[1:] or (inverse, inverse)))
        factor = 1 + math.atan(math.prod(map(pow, precise, powers)) - 1)
        accepted = factor >= accept_safety
        if accepted:
            x, previous, sigma = high + fresh * (s_noise * sigma_up), low, lower
            precise = (inverse, *precise[:2])
        h = h * factor
    return x


NEAR = 1e-5
"""Of the end, in log sigma."""

MOST_EVALUATIONS = 10_000
"""A hundred times what it usually takes."""

TINY = 1e-8


def _error(
    low: torch.Tensor, high: torch.Tensor, previous: torch.Tensor, rtol: float, atol: float
) -> Generator[Question, Any, float]:
    """How far two orders lie apart, in units of what is allowed; root mean square over the picture."""
    allowed = torch.maximum(low.abs(), previous.abs()).mul(rtol).clamp(min=atol)
    distance: float = yield Read(torch.linalg.vector_norm((low - high) / allowed))
    error = distance / math.sqrt(low.numel())
    if not math.isfinite(error):
        raise Broken(Fault.LATENTS)  # no step length mends that
    return error


def _down_to(sigma_min: float, sigma: float, lower: float, eta: float) -> tuple[float, float]:
    """An ancestral step that does not lead below `sigma_min`."""
    sigma_down = max(sigma_min, ancestral_step(sigma, lower, eta)[0])
    return sigma_down, math.sqrt(max(0.0, lower**2 - sigma_down**2))


def dpm_solver_1(x: torch.Tensor, slope: torch.Tensor, sigma: float, lower: float, asked: int) -> Solving:
    """DPM-Solver-1, equation 3.7 (Euler's step); of no lower order than itself."""
    yield from ()
    end = x + slope * (lower - sigma)
    return end, end


def dpm_solver_2(
    x: torch.Tensor, slope: torch.Tensor, sigma: float, lower: float, asked: int, r1: float = 1 / 2
) -> Solving:
    """DPM-Solver-2, algorithm 1, over lambda = −log sigma; asks once."""
    sigma_1 = sigma * math.exp(-r1 * math.log(sigma / lower))
    slope_1 = yield from slope_at(x + slope * (sigma_1 - sigma), sigma_1, asked)
    return _orders_1_and_2(x, slope, slope_1, lower - sigma, r1)


def dpm_solver_3(x: torch.Tensor, slope: torch.Tensor, sigma: float, lower: float, asked: int) -> Solving:
    """DPM-Solver-3, algorithm 2, over lambda = −log sigma; asks twice."""
    r1, r2 = 1 / 3, 2 / 3
    h = math.log(sigma / lower)
    sigma_1, sigma_2 = sigma * math.exp(-r1 * h), sigma * math.exp(-r2 * h)
    slope_1 = yield from slope_at(x + slope * (sigma_1 - sigma), sigma_1, asked)
    bend = (slope_1 - slope) * (r2 / r1 * sigma_2 * _phi(r2 * h))
    slope_2 = yield from slope_at(x + slope * (sigma_2 - sigma) - bend, sigma_2, asked + 1)
    _, second = _orders_1_and_2(x, slope, slope_1, lower - sigma, r1)
    return second, x + slope * (lower - sigma) - (slope_2 - slope) * (lower * _phi(h) / r2)


SOLVERS = {1: dpm_solver_1, 2: dpm_solver_2, 3: dpm_solver_3}


def _orders_1_and_2(
    x: torch.Tensor, slope: torch.Tensor, slope_1: torch.Tensor, way: float, r1: float
) -> tuple[torch.Tensor, torch.Tensor]:
    first = x + slope * way
    return first, first + (slope_1 - slope) * (way / (2 * r1))


def _phi(h: float) -> float:
    return math.expm1(h) / h - 1
