"""What all samplers have in common: their type, and the split of a step into denoising and noise."""

import math
from collections.abc import Callable, Generator
from typing import Any

import torch

from farm.questions import Denoise, Draw, NoiseSource, Output, Read

Question = Denoise | Output | Draw | Read
Sampling = Generator[Question | tuple[Question, ...], Any, torch.Tensor]
"""Yields a question, or several to have them answered together; returns the latents."""

SamplerFunction = Callable[..., Sampling]
"""Called with the latents, the sigmas and the noise, and by name with the options of its row."""

Sigmas = tuple[float, ...]

MAX_CHURN = math.sqrt(2) - 1
"""Karras et al. 2022: at most so much of sigma is added before one step."""


def slope_at(x: torch.Tensor, sigma: float, step: int) -> Sampling:
    """Asks for dx/dsigma: Karras et al. 2022 (arXiv:2206.00364), algorithm 2, line 7."""
    denoised: torch.Tensor = yield Denoise(x, sigma, step)
    return (x - denoised) / sigma


def churned(
    x: torch.Tensor,
    sigma: float,
    noise: NoiseSource,
    per_step: float,
    within: tuple[float, float],
    s_noise: float,
) -> Generator[Question | tuple[Question, ...], Any, tuple[torch.Tensor, float]]:
    """Adds noise before a step: Karras et al. 2022 (arXiv:2206.00364), algorithm 2, lines 4 to 6.

    Args:
        x: latents.
        sigma: of their noise.
        noise: where more comes from.
        per_step: s_churn, divided by the steps.
        within: s_tmin and s_tmax; latents whose sigma lies outside are given back as they are.
        s_noise: factor of the noise that is added.

    Returns:
        The noisier latents, and the sigma that they stand for.
    """
    if per_step == 0:
        return x, sigma
    fresh = yield Draw(noise)  # even where it is not added: k-diffusion's later draws follow upon it
    if not within[0] <= sigma <= within[1]:
        return x, sigma
    raised = sigma * (1 + min(per_step, MAX_CHURN))
    return x + fresh * (s_noise * math.sqrt(raised**2 - sigma**2)), raised


def ancestral_step(sigma: float, lower: float, eta: float = 1.0) -> tuple[float, float]:
    """Splits a step into a deterministic part, down to `sigma_down`, and noise of `sigma_up`.

    The two add up to `lower` in variance.
    """
    sigma_up = min(lower, eta * math.sqrt(lower**2 * (sigma**2 - lower**2) / sigma**2))
    return math.sqrt(lower**2 - sigma_up**2), sigma_up


def unit_variance(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Latents in the scale of training, where pictures of variance 1 keep it whatever the noise."""
    return x / math.sqrt(sigma**2 + 1)
