from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline

from farm.render.samplers.lcm import boundary_scalings, lcm
from farm.render.schedules import sigmas_for
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from tests.render.oracles import STABLE_DIFFUSION, Recorded, drive, two_points
from tests.render.rendering import LEVELS
from tests.render.unit_variance import (
    ALPHAS,
    MODEL,
    SHAPE,
    alphas_of,
    apart_from_diffusers,
    every_grid,
    grids,
    noise_for,
    settings,
    sigma_of,
    sigmas_at,
    two_points_noise,
)


def diffusers_times(steps: int) -> list[int]:
    """Of the 50 timesteps that the model was distilled at, falling, evenly spaced ones."""
    distilled = np.arange(50, 0, -1) * 20 - 1
    return [int(distilled[index]) for index in np.floor(np.arange(steps) * 50 / steps).astype(int)]


def a1111_times(steps: int) -> list[int]:
    """Evenly spaced from the last to the first of the 50, where that gives some of them."""
    times = np.linspace(999, 19, steps)
    assert set(times) <= set(np.arange(1, 51) * 20.0 - 1)
    return [int(time) for time in times]


def ours(sigmas: tuple[float, ...], *draws: torch.Tensor) -> torch.Tensor:
    first, *others = draws
    return drive(lcm(first * sigmas[0], sigmas, Recorded(others), time_at=MODEL.time_at), two_points)[0]


def theirs(times: list[int], *draws: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    scheduler = LCMScheduler(**STABLE_DIFFUSION, clip_sample=False)
    scheduler.alphas_cumprod = torch.from_numpy(ALPHAS)  # it keeps them in float32
    scheduler.set_timesteps(timesteps=times)
    first, *others = draws
    left = iter(others)
    monkeypatch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *_, **__: next(left))
    x = first * (1 - ALPHAS[times[0]]) ** 0.5  # as ours: without the picture's own variance
    for time in times:
        x = scheduler.step(two_points_noise(x, float(ALPHAS[time])), time, x).prev_sample
    return x


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 25])
def test_equals_diffusers(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    times, draws = diffusers_times(steps), noise_for(steps)
    reference = theirs(times, *draws, monkeypatch=monkeypatch)
    torch.testing.assert_close(ours(sigmas_at(times, 0.0), *draws), reference, rtol=0, atol=1e-6)


def paper(sigmas: tuple[float, ...], *draws: torch.Tensor, unit_variance: bool = True) -> torch.Tensor:
    """Written out for latents z of unit variance; or with c_skip on latents in our scale, as A1111."""
    first, *others = draws
    z = first * sigmas[0] / (1 + sigmas[0] ** 2) ** 0.5
    for step, (a_t, a_next) in enumerate(alphas_of(sigmas)):
        picture = (z - (1 - a_t) ** 0.5 * two_points_noise(z, a_t)) / a_t**0.5
        scaled = 10 * MODEL.time_at(float(sigma_of(a_t)))
        c_skip, c_out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25) ** 0.5
        z = c_skip * (z if unit_variance else z / a_t**0.5) + c_out * picture
        if step < len(sigmas) - 2:
            z = a_next**0.5 * z + (1 - a_next) ** 0.5 * others[step]
    return z


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@every_grid
def test_equals_the_paper_on_other_schedules(grid: str, steps: int) -> None:
    sigmas, draws = grids(steps)[grid], noise_for(steps)
    torch.testing.assert_close(ours(sigmas, *draws), paper(sigmas, *draws), rtol=0, atol=1e-6)


@pytest.mark.parity
def test_begins_anywhere() -> None:
    sigmas, draws = grids(8)["uniform"][5:], noise_for(3)
    torch.testing.assert_close(ours(sigmas, *draws), paper(sigmas, *draws), rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("time", a1111_times(50))
def test_a1111_skips_in_another_scale_which_hardly_shows_in_a_step(time: int) -> None:
    sigmas, draws = sigmas_at([time], 0.0), noise_for(1)
    a1111 = paper(sigmas, *draws, unit_variance=False)
    torch.testing.assert_close(ours(sigmas, *draws), a1111, rtol=0, atol=2e-7)


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_schedule_goes_from_the_last_to_the_first_timestep_that_models_are_distilled_at(steps: int) -> None:
    wanted = settings("LCM", steps)
    sigmas = sigmas_for(wanted, BUILT_IN["LCM"], BUILT_IN.schedules[wanted.schedule], MODEL)
    assert sigmas == pytest.approx(sigmas_at(a1111_times(steps), 0.0), rel=1e-6)


def test_network_is_its_own_boundary_at_timestep_0() -> None:
    assert boundary_scalings(0) == (1, 0)


@pytest.mark.parametrize("steps", range(1, 6))
def test_asks_once_a_step_and_draws_once_less(steps: int) -> None:
    first, *others = noise_for(steps)
    noise = Recorded(others)
    sampling: Any = lcm(first, grids(steps)["uniform"], noise, time_at=MODEL.time_at)
    asked = drive(sampling, two_points)[1]
    assert [question.step for question in asked] == list(range(steps))
    assert asked[0].x is first and not list(noise._draws)
    assert asked[0].x.shape == SHAPE


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_pictures_equal_diffusers_pipeline(
    steps: int, networks: Networks, pipeline: StableDiffusionPipeline
) -> None:
    """From A1111's start and on its timesteps.

    diffusers starts from noise of standard deviation 1, where A1111 leaves out a picture's share of it, and
    its timesteps at 8 steps are 999, 879, …, of which the last is higher than 19.
    """
    scheduler = LCMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    times, scale = a1111_times(steps), float((1 - ALPHAS[999]) ** 0.5)
    others = {"scale": scale, "timesteps": times}
    assert apart_from_diffusers(settings("LCM", steps), scheduler, networks, pipeline, **others) <= LEVELS
