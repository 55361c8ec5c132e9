import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UniPCMultistepScheduler

from farm.render.samplers.unipc import unipc, unipc_weights
from farm.render.schedules import sigmas_for
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from tests.render.oracles import STABLE_DIFFUSION, Denoiser, Recorded, bent, drive
from tests.render.rendering import LEVELS
from tests.render.unit_variance import (
    MODEL,
    SHAPE,
    alpha_of,
    apart_from_diffusers,
    every_grid,
    grids,
    noise_for,
    noise_in,
    settings,
)

SOLVER = {"solver_order": 3, "solver_type": "bh1", "predict_x0": True, "lower_order_final": True}


def a1111_sigmas(steps: int) -> tuple[float, ...]:
    """Timesteps evenly spaced from the last to the first, which the last step leads to."""
    return tuple(float(sigma) for sigma in MODEL.sigma_at(np.linspace(999, 0, steps + 1)))


def ours(sigmas: tuple[float, ...], first: torch.Tensor) -> torch.Tensor:
    x = first * (sigmas[0] ** 2 + 1) ** 0.5
    return drive(unipc(x, sigmas, Recorded([])), bent)[0]


def theirs(
    sigmas: tuple[float, ...], x: torch.Tensor, *_: torch.Tensor, denoiser: Denoiser = bent
) -> torch.Tensor:
    scheduler = UniPCMultistepScheduler(**STABLE_DIFFUSION, **SOLVER)
    steps = len(sigmas) - 1
    scheduler.set_timesteps(steps)
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)  # its own are rounded to whole timesteps
    scheduler.timesteps = torch.arange(steps, 0, -1)
    for time, sigma in zip(scheduler.timesteps, sigmas):
        x = scheduler.step(noise_in(x, float(alpha_of(sigma)), denoiser), time, x).prev_sample
    return x


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 20, 50])
def test_equals_diffusers(steps: int) -> None:
    sigmas, [x] = a1111_sigmas(steps), noise_for(1)
    torch.testing.assert_close(ours(sigmas, x), theirs(sigmas, x), rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
@every_grid
def test_equals_diffusers_on_schedules_that_end_at_0(grid: str, steps: int) -> None:
    """At 0 diffusers' bh1 computes infinity times 0; its limit is taken next to it."""
    sigmas, [x] = grids(steps)[grid], noise_for(1)
    assert theirs(sigmas, x).isnan().all()
    nearly = theirs((*sigmas[:-1], 1e-9), x)
    torch.testing.assert_close(ours(sigmas, x), nearly, rtol=0, atol=1e-6)


@pytest.mark.parity
def test_begins_anywhere() -> None:
    sigmas, [x] = a1111_sigmas(20)[13:], noise_for(1)
    torch.testing.assert_close(ours(sigmas, x), theirs(sigmas, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", range(1, 8))
def test_asks_once_a_step(steps: int) -> None:
    x = torch.ones(SHAPE)
    asked = drive(unipc(x, a1111_sigmas(steps), Recorded([])), bent)[1]
    assert [question.step for question in asked] == list(range(steps))
    assert asked[0].x is x


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 31])
def test_own_schedule_is_a1111s(steps: int) -> None:
    wanted = settings("UniPC", steps)
    sigmas = sigmas_for(wanted, BUILT_IN["UniPC"], BUILT_IN.schedules[wanted.schedule], MODEL)
    assert sigmas == pytest.approx(a1111_sigmas(steps), rel=1e-6)


@pytest.mark.parametrize("ratios", [[-0.7, 1.0], [-1.4, -0.6, 1.0]])
def test_weights_integrate_polynomials_exactly(ratios: list[float]) -> None:
    """∫₀ʰ e^(t − h)·f(t) dt for f that vanishes at 0, which is what a step adds for its data prediction f."""
    h = 0.8
    weights = unipc_weights(ratios, h)
    nodes, gauss = np.polynomial.legendre.leggauss(20)
    times = (nodes + 1) * h / 2
    for power in range(1, len(ratios) + 1):
        integral = h / 2 * np.sum(gauss * np.exp(times - h) * times**power)
        added = sum(h * weight / ratio * (ratio * h) ** power for weight, ratio in zip(weights, ratios))
        assert added == pytest.approx(integral, abs=1e-12)


@pytest.mark.parity
def test_pictures_equal_diffusers_pipeline(networks: Networks, pipeline: StableDiffusionPipeline) -> None:
    """At 9 steps, where the evenly spaced timesteps are whole; elsewhere diffusers rounds them."""
    scheduler = UniPCMultistepScheduler.from_config(
        pipeline.scheduler.config, **SOLVER, timestep_spacing="linspace", final_sigmas_type="sigma_min"
    )
    assert apart_from_diffusers(settings("UniPC", 9), scheduler, networks, pipeline) <= LEVELS
