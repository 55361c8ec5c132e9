"""The scale of CompVis and diffusers: latents √a·picture + √(1 − a)·noise, with a = 1/(sigma² + 1)."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from farm.cell import Settings
from farm.resolving import resolved
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from tests.render.oracles import Denoiser, bent, stable_diffusion
from tests.render.rendering import Counting, apart, render

SHAPE = (1, 4, 3, 5)
MODEL = stable_diffusion()
ALPHAS = 1 / (1 + np.exp(2 * MODEL.log_sigmas))
"""alphas_cumprod of Stable Diffusion in float64."""


def noise_for(draws: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(draws)]


def sigma_of(alpha: Any) -> Any:
    return np.sqrt((1 - alpha) / alpha)


def alpha_of(sigma: Any) -> Any:
    return 1 / (1 + np.square(sigma))


def noise_in(x: torch.Tensor, alpha: float, denoiser: Denoiser = bent) -> torch.Tensor:
    """The noise in latents of unit variance, by a denoiser that sees ours."""
    picture = denoiser(x / alpha**0.5, float(sigma_of(alpha)))
    return (x - alpha**0.5 * picture) / (1 - alpha) ** 0.5


def sigmas_at(times: Any, final: float) -> tuple[float, ...]:
    return (*(float(sigma_of(ALPHAS[time])) for time in times), final)


def grids(steps: int) -> dict[str, tuple[float, ...]]:
    """Sigmas of other schedules than a sampler's own, in float64, down to 0."""
    low, high = MODEL.sigma_min, MODEL.sigma_max
    karras = np.linspace(high ** (1 / 7), low ** (1 / 7), steps) ** 7
    spaced = {
        "uniform": MODEL.sigma_at(np.linspace(999, 0, steps)),
        "karras": karras,
        "exponential": np.exp(np.linspace(np.log(high), np.log(low), steps)),
    }
    return {name: (*(float(sigma) for sigma in sigmas), 0.0) for name, sigmas in spaced.items()}


every_grid = pytest.mark.parametrize("grid", ["uniform", "karras", "exponential"])


def alphas_of(sigmas: tuple[float, ...]) -> list[tuple[float, float]]:
    """CompVis's `alphas` and `alphas_prev` of each step."""
    return list(pairwise(float(alpha_of(sigma)) for sigma in sigmas))


def settings(sampler: str, steps: int, **others: Any) -> Settings:
    wanted = {
        "model": "tiny",
        "prompt": "portrait of beautiful cat",
        "negative_prompt": "blurry",
        "sampler": sampler,
        "steps": steps,
        "cfg_scale": 4.0,
        "seed": 3805052747,
        "width": 64,
        "height": 64,
    }
    return resolved(wanted | others, BUILT_IN)


def apart_from_diffusers(
    wanted: Settings,
    scheduler: Any,
    networks: Networks,
    pipeline: StableDiffusionPipeline,
    scale: float = 1.0,
    **others: Any,
) -> int:
    """How far our picture is from the one that diffusers' pipeline makes with a scheduler.

    The pipeline starts from noise of standard deviation `scale`.
    """
    generator = torch.Generator().manual_seed(wanted.seed)
    before, pipeline.scheduler = pipeline.scheduler, scheduler
    theirs = pipeline(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.cfg_scale,
        generator=generator,
        latents=torch.randn((1, 4, wanted.height // 8, wanted.width // 8), generator=generator) * scale,
        width=wanted.width,
        height=wanted.height,
        **others,
    ).images[0]
    pipeline.scheduler = before
    return apart(render([wanted], Counting(networks))[0], np.asarray(theirs))
