from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler, StableDiffusionPipeline

from farm.counting import ddim_steps
from farm.render.samplers.ddim import ddim, plms
from farm.render.schedules import sigmas_for
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from tests.render.oracles import STABLE_DIFFUSION, Denoiser, Recorded, bent, drive, k_diffusion
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
    noise_in,
    settings,
    sigmas_at,
)

COMPVIS = {"steps_offset": 1, "set_alpha_to_one": False}
"""What makes diffusers' schedulers CompVis's."""


def compvis_times(steps: int) -> list[int]:
    """CompVis's `uniform` timesteps, falling, as A1111 asks for them: never one of 1000."""
    if (999 / (1000 // steps)).is_integer():
        steps = int(999 / (1000 // steps)) + 1
    return [time + 1 for time in range(0, 1000, 1000 // steps)][::-1]


def compvis_sigmas(steps: int) -> tuple[float, ...]:
    return sigmas_at(compvis_times(steps), sigmas_at([0], 0.0)[0])


def ours(function: Any, sigmas: tuple[float, ...], *draws: torch.Tensor, **options: Any) -> torch.Tensor:
    """From the first draw as latents of unit variance."""
    first, *others = draws
    x = first * (sigmas[0] ** 2 + 1) ** 0.5
    return drive(function(x, sigmas, Recorded(others), **options), bent)[0]


def compvis_ddim(
    sigmas: tuple[float, ...], *draws: torch.Tensor, eta: float = 0.0, denoiser: Denoiser = bent
) -> torch.Tensor:
    """Song et al. 2020, equation 12, in CompVis's order."""
    x, *others = draws
    for (a_t, a_prev), noise in zip(alphas_of(sigmas), others):
        e_t = noise_in(x, a_t, denoiser)
        sigma_t = eta * ((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)) ** 0.5
        pred_x0 = (x - (1 - a_t) ** 0.5 * e_t) / a_t**0.5
        dir_xt = (1 - a_prev - sigma_t**2) ** 0.5 * e_t
        x = a_prev**0.5 * pred_x0 + dir_xt + sigma_t * noise
    return x


def compvis_plms(
    sigmas: tuple[float, ...], x: torch.Tensor, *_: torch.Tensor, denoiser: Denoiser = bent
) -> torch.Tensor:
    """CompVis's PLMS: pseudo improved Euler, then Adams–Bashforth of order 2, 3 and 4."""
    alphas, old_eps = alphas_of(sigmas), []

    def stepped(e_t: torch.Tensor, a_t: float, a_prev: float) -> torch.Tensor:
        pred_x0 = (x - (1 - a_t) ** 0.5 * e_t) / a_t**0.5
        return a_prev**0.5 * pred_x0 + (1 - a_prev) ** 0.5 * e_t

    for index, (a_t, a_prev) in enumerate(alphas):
        e_t = noise_in(x, a_t, denoiser)
        if index == 0:
            a_next = alphas[min(1, len(alphas) - 1)][0]  # of a lone step, it asks at its own timestep again
            e_prime = (e_t + noise_in(stepped(e_t, a_t, a_prev), a_next, denoiser)) / 2
        elif index == 1:
            e_prime = (3 * e_t - old_eps[-1]) / 2
        elif index == 2:
            e_prime = (23 * e_t - 16 * old_eps[-1] + 5 * old_eps[-2]) / 12
        else:
            e_prime = (55 * e_t - 59 * old_eps[-1] + 37 * old_eps[-2] - 9 * old_eps[-3]) / 24
        x = stepped(e_prime, a_t, a_prev)
        old_eps.append(e_t)
    return x


def diffusers_on_bent(scheduler: Any, steps: int, *draws: torch.Tensor, **options: Any) -> torch.Tensor:
    scheduler.alphas_cumprod = torch.from_numpy(ALPHAS)  # it keeps them in float32
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(steps)
    x, *others = draws
    for time, noise in zip(scheduler.timesteps.tolist(), others):
        given = options | ({"variance_noise": noise} if options.get("eta") else {})
        x = scheduler.step(noise_in(x, float(ALPHAS[time])), time, x, **given).prev_sample
    return x


@pytest.mark.parity
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 31, 50])
def test_ddim_equals_compvis(steps: int, eta: float) -> None:
    sigmas = compvis_sigmas(steps)
    draws = noise_for(len(sigmas))
    theirs = compvis_ddim(sigmas, *draws, eta=eta)
    torch.testing.assert_close(ours(ddim, sigmas, *draws, eta=eta), theirs, rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [2, 3, 8])
@every_grid
def test_ddim_equals_compvis_formulas_on_other_schedules(grid: str, steps: int) -> None:
    sigmas, draws = grids(steps)[grid], noise_for(steps + 1)
    theirs = compvis_ddim(sigmas, *draws, eta=0.5)
    torch.testing.assert_close(ours(ddim, sigmas, *draws, eta=0.5), theirs, rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 4, 5, 25, 100])
def test_ddim_equals_diffusers(steps: int, eta: float) -> None:
    """Where 1000 divides by the steps; elsewhere CompVis takes more timesteps than asked for."""
    scheduler = DDIMScheduler(**STABLE_DIFFUSION, **COMPVIS, clip_sample=False)
    draws = noise_for(steps + 1)
    theirs = diffusers_on_bent(scheduler, steps, *draws, eta=eta)
    mine = ours(ddim, compvis_sigmas(steps), *draws, eta=eta)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize(("eta", "function"), [(0.0, "euler"), (0.6, "euler_ancestral")])
@every_grid
def test_ddim_is_euler_in_another_scale(grid: str, eta: float, function: str) -> None:
    sigmas, draws = grids(9)[grid], noise_for(10)
    options = {"eta": eta, "noise_sampler": Recorded(draws[1:])} if eta else {}
    theirs = getattr(k_diffusion("sampling"), f"sample_{function}")(
        lambda x, sigma: bent(x, sigma.view(-1, 1, 1, 1)),
        draws[0] * (sigmas[0] ** 2 + 1) ** 0.5,
        torch.tensor(sigmas, dtype=torch.float64),
        disable=True,
        **options,
    )
    torch.testing.assert_close(ours(ddim, sigmas, *draws, eta=eta), theirs, rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("t_enc", [1, 6, 19])
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim_begins_anywhere_as_compvis_decodes(t_enc: int, eta: float) -> None:
    sigmas = compvis_sigmas(20)[-t_enc - 1 :]
    draws = noise_for(t_enc + 1)
    theirs = compvis_ddim(sigmas, *draws, eta=eta)
    torch.testing.assert_close(ours(ddim, sigmas, *draws, eta=eta), theirs, rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("t_enc", [1, 6, 19])
def test_plms_begins_anywhere_too(t_enc: int) -> None:
    sigmas, [x] = compvis_sigmas(20)[-t_enc - 1 :], noise_for(1)
    torch.testing.assert_close(ours(plms, sigmas, x), compvis_plms(sigmas, x), rtol=0, atol=1e-6)


def test_ddim_asks_for_noise_only_with_eta() -> None:
    sigmas, [x, *draws] = grids(4)["uniform"], noise_for(5)
    kept = Recorded(draws)
    drive(ddim(x, sigmas, kept), bent)
    assert len(list(kept._draws)) == 4
    used = Recorded(draws)
    drive(ddim(x, sigmas, used, eta=1.0), bent)
    assert len(list(used._draws)) == 1  # none for the step that ends at 0


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 20, 31])
def test_plms_equals_compvis(steps: int) -> None:
    sigmas, [x] = compvis_sigmas(steps), noise_for(1)
    torch.testing.assert_close(ours(plms, sigmas, x), compvis_plms(sigmas, x), rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
@every_grid
def test_plms_equals_compvis_formulas_on_other_schedules(grid: str, steps: int) -> None:
    sigmas, [x] = grids(steps)[grid], noise_for(1)
    torch.testing.assert_close(ours(plms, sigmas, x), compvis_plms(sigmas, x), rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [2, 4, 5, 25])
def test_plms_equals_diffusers(steps: int) -> None:
    """Where 1000 divides by the steps, and from 2 on: diffusers corrects no lone step."""
    scheduler = PNDMScheduler(**STABLE_DIFFUSION, **COMPVIS, skip_prk_steps=True)
    [x] = noise_for(1)
    theirs = diffusers_on_bent(scheduler, steps, x, *[x] * (steps + 1))
    torch.testing.assert_close(ours(plms, compvis_sigmas(steps), x), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize(("name", "function"), [("DDIM", ddim), ("PLMS", plms)])
def test_asks_as_often_as_the_plan_says(name: str, function: Any, steps: int) -> None:
    sigmas = compvis_sigmas(steps)
    assert len(sigmas) - 1 == ddim_steps(steps)
    asked = drive(function(torch.ones(SHAPE), sigmas, Recorded([])), bent)[1]
    assert len(asked) == BUILT_IN[name].evaluations(ddim_steps(steps))


@pytest.mark.parametrize("function", [ddim, plms])
def test_first_question_is_the_very_tensor_it_was_given(function: Any) -> None:
    x = torch.ones(SHAPE)
    question = function(x, compvis_sigmas(4), Recorded([])).send(None)
    question = question[0] if isinstance(question, tuple) else question
    assert question.x is x and question.step == 0


@pytest.mark.parity
@pytest.mark.parametrize(("sampler", "eta"), [("DDIM", 0.0), ("DDIM", 0.5), ("PLMS", 0.0)])
def test_pictures_equal_diffusers_pipeline(
    sampler: str, eta: float, networks: Networks, pipeline: StableDiffusionPipeline
) -> None:
    config = pipeline.scheduler.config
    if sampler == "DDIM":
        scheduler = DDIMScheduler.from_config(
            config, **COMPVIS, timestep_spacing="leading", clip_sample=False
        )
    else:
        scheduler = PNDMScheduler.from_config(
            config, **COMPVIS, timestep_spacing="leading", skip_prk_steps=True
        )
    others = {"eta": eta} if sampler == "DDIM" else {}
    wanted = settings(sampler, 10, **others)
    assert apart_from_diffusers(wanted, scheduler, networks, pipeline, **others) <= LEVELS


@pytest.mark.parametrize("steps", [*range(1, 40), 100, 333, 500])
def test_own_schedule_is_compvis(steps: int) -> None:
    """Timestep 1 has the last question, and the step from there ends at timestep 0."""
    wanted = settings("DDIM", steps)
    sigmas = sigmas_for(wanted, BUILT_IN["DDIM"], BUILT_IN.schedules[wanted.schedule], MODEL)
    assert sigmas == pytest.approx(compvis_sigmas(steps), rel=1e-6)


def test_compvis_takes_more_timesteps_than_asked_for_where_they_do_not_divide_1000() -> None:
    assert [len(compvis_times(steps)) for steps in (5, 7, 30)] == [5, 8, 31]
    assert np.diff(compvis_times(7)).tolist() == [-142] * 7
