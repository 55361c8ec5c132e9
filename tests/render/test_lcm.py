from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline

from farm.render.distilled import distilled
from farm.render.requests import Predict, Request
from farm.render.samplers.lcm import boundary_scalings, lcm
from farm.render.schedules import sigmas_for
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from tests.render.on_the_model import decoded
from tests.render.oracles import STABLE_DIFFUSION, Recorded, bent, drive
from tests.render.rendering import LEVELS, Counting, apart, prompt_states, render
from tests.render.unit_variance import (
    ALPHAS,
    MODEL,
    SHAPE,
    alphas_of,
    apart_from_diffusers,
    every_grid,
    grids,
    noise_for,
    noise_in,
    settings,
    sigma_of,
    sigmas_at,
)

DISTILLED = distilled(MODEL, 50)
KNOWN = np.arange(50) * 20 + 19
"""The timesteps that latent consistency models are distilled at."""


def known_time(sigma: float) -> int:
    """Of the noise level that is nearest in log sigma."""
    return int(KNOWN[np.abs(MODEL.log_sigmas[KNOWN] - np.log(sigma)).argmin()])


def a1111_sigmas(steps: int) -> tuple[float, ...]:
    """Timesteps from the last to the first of the 50; log sigma is interpolated between these."""
    places = (np.linspace(999, 19, steps) - 19) / 20
    return (*np.exp(np.interp(places, np.arange(50), MODEL.log_sigmas[KNOWN])).tolist(), 0.0)


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
    return drive(lcm(first * sigmas[0], sigmas, Recorded(others), time_at=DISTILLED.time_at), bent)[0]


def theirs(times: list[int], *draws: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    scheduler = LCMScheduler(**STABLE_DIFFUSION, clip_sample=False)
    scheduler.alphas_cumprod = torch.from_numpy(ALPHAS)  # it keeps them in float32
    scheduler.set_timesteps(timesteps=times)
    first, *others = draws
    left = iter(others)
    monkeypatch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *_, **__: next(left))
    x = first * (1 - ALPHAS[times[0]]) ** 0.5  # as ours: without the picture's own variance
    for time in times:
        x = scheduler.step(noise_in(x, float(ALPHAS[time])), time, x).prev_sample
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
        picture = (z - (1 - a_t) ** 0.5 * noise_in(z, a_t)) / a_t**0.5
        scaled = 10 * known_time(float(sigma_of(a_t)))
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


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 20, 77])
def test_schedule_is_a1111s(steps: int) -> None:
    wanted = settings("LCM", steps)
    sigmas = sigmas_for(wanted, BUILT_IN["LCM"], BUILT_IN.schedules[wanted.schedule], DISTILLED)
    assert sigmas == pytest.approx(a1111_sigmas(steps), rel=1e-6)


@pytest.mark.parametrize("steps", [1, 20, 333, 1000])
@pytest.mark.parametrize("limits", [(None, 0.5), (None, 1.0), (None, 9.0), (0.3, None), (0.3, 2.0)], ids=str)
@pytest.mark.parametrize("schedule", ["uniform", "sgm_uniform"])
def test_a_range_that_is_asked_for_is_kept(
    schedule: str, limits: tuple[float | None, float | None], steps: int
) -> None:
    low, high = limits
    wanted = settings("LCM", steps, schedule=schedule, sigma_min=low, sigma_max=high)
    made = sigmas_for(wanted, BUILT_IN["LCM"], BUILT_IN.schedules[schedule], DISTILLED)
    assert len(made) == steps + 1 and made[0] == pytest.approx(high or MODEL.sigma_max)
    if schedule == "uniform" and steps > 1:
        assert made[-2] == pytest.approx(low or MODEL.sigmas[19])


class Told(Counting):
    """Keeps the timesteps that the network is told of, each once, falling."""

    times: tuple[float, ...] = ()

    def run(self, requests: list[Request]) -> list[Any]:
        told = {row.time for row in requests if isinstance(row, Predict)}
        self.times = tuple(sorted({*self.times, *told}, reverse=True))
        return super().run(requests)


@pytest.mark.parity
@pytest.mark.parametrize("schedule", ["uniform", "karras", "beta", "simple", "ddim"])
def test_network_is_told_of_nothing_but_the_timesteps_it_was_distilled_at(
    schedule: str, networks: Networks
) -> None:
    runner, wanted = Told(networks), settings("LCM", 6, schedule=schedule)
    render([wanted], runner)
    sigmas = sigmas_for(wanted, BUILT_IN["LCM"], BUILT_IN.schedules[schedule], DISTILLED)
    assert runner.times == pytest.approx(sorted({known_time(one) for one in sigmas[:-1]}, reverse=True))


@torch.inference_mode()
def a1111_picture(steps: int, sigmas: tuple[float, ...], networks: Networks) -> np.ndarray:
    """A1111's loop written out, with its c_skip on latents that are not scaled."""
    wanted = settings("LCM", steps)
    texts = torch.cat([prompt_states(networks, text) for text in (wanted.negative_prompt, wanted.prompt)])
    generator = torch.Generator().manual_seed(wanted.seed)
    x = torch.randn((1, 4, 8, 8), generator=generator) * sigmas[0]
    for sigma, lower in zip(sigmas, sigmas[1:]):
        time = known_time(sigma)
        shown = (x / (sigma**2 + 1) ** 0.5).expand(2, -1, -1, -1)
        noise = networks.unet(shown, torch.tensor([time, time]), texts, return_dict=False)[0]
        c_skip, c_out = 0.25 / ((time * 10) ** 2 + 0.25), time * 10 / ((time * 10) ** 2 + 0.25) ** 0.5
        without, with_prompt = (c_out * (x - sigma * noise)) + c_skip * x
        x = (without + wanted.cfg_scale * (with_prompt - without))[None]
        if lower > 0:
            x = x + lower * torch.randn(x.shape, generator=generator)
    return decoded(x, networks)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 4, 7])
@every_grid
def test_pictures_equal_a1111s_loop(grid: str, steps: int, networks: Networks) -> None:
    low, high = MODEL.sigmas[19], MODEL.sigmas[999]
    sigmas = {
        "uniform": a1111_sigmas(steps),
        "karras": (*(np.linspace(high ** (1 / 7), low ** (1 / 7), steps) ** 7).tolist(), 0.0),
        "exponential": (*np.geomspace(high, low, steps).tolist(), 0.0),
    }[grid]
    ours = render([settings("LCM", steps, schedule=grid)], Counting(networks))[0]
    assert apart(ours, a1111_picture(steps, sigmas, networks)) <= LEVELS


def test_network_is_its_own_boundary_at_timestep_0() -> None:
    assert boundary_scalings(0) == (1, 0)


@pytest.mark.parametrize("steps", range(1, 6))
def test_asks_once_a_step_and_draws_once_less(steps: int) -> None:
    first, *others = noise_for(steps)
    noise = Recorded(others)
    sampling: Any = lcm(first, grids(steps)["uniform"], noise, time_at=DISTILLED.time_at)
    asked = drive(sampling, bent)[1]
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
