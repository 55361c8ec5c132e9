"""Samplers that are not k-diffusion's, on its schedules: pictures against the references run on the model."""

from functools import partial
from typing import Any

import pytest
import torch

from farm.render.samplers.sampling import Sigmas
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from tests.render.on_the_model import decoded, k_diffusion_model, k_diffusion_sigmas, with_guidance
from tests.render.rendering import LEVELS, Counting, apart, render
from tests.render.test_ddim import compvis_ddim, compvis_plms
from tests.render.test_restart import reference
from tests.render.test_unipc import theirs
from tests.render.unit_variance import every_grid, settings

REFERENCES: dict[str, Any] = {
    "DDIM": partial(compvis_ddim, eta=0.5),
    "PLMS": compvis_plms,
    "UniPC": lambda sigmas, *draws, denoiser: theirs((*sigmas[:-1], 1e-9), *draws, denoiser=denoiser),
    "Restart": reference,
}
STEPS = {"Restart": 21}
"""From 20 on it restarts."""


@pytest.mark.parity
@pytest.mark.parametrize("sampler", REFERENCES)
@every_grid
@torch.inference_mode()
@pytest.mark.slow
def test_equals_the_reference(sampler: str, grid: str, networks: Networks) -> None:
    row = BUILT_IN[sampler]
    wanted = settings(sampler, STEPS.get(sampler, 6), schedule=grid, eta=0.5)
    model = k_diffusion_model(wanted, networks)
    sigmas: Sigmas = tuple(k_diffusion_sigmas(row, wanted, model).tolist())
    generator = torch.Generator().manual_seed(wanted.seed)
    draws = [torch.randn((1, 4, 8, 8), generator=generator) for _ in sigmas]

    def denoiser(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return with_guidance(model, wanted, x, torch.tensor([sigma]))

    latents = REFERENCES[sampler](sigmas, *draws, denoiser=denoiser)
    assert apart(render([wanted], Counting(networks))[0], decoded(latents, networks)) <= LEVELS
