from itertools import pairwise

import pytest
import torch

from farm.render.schedules import SCHEDULES, sigmas_for
from farm.sampling import SAMPLERS
from tests.render.oracles import STABLE_DIFFUSION, k_diffusion, stable_diffusion

MODEL = stable_diffusion()
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 150, 1000])
@each_schedule
def test_falls_to_zero_in_as_many_steps(schedule: str, steps: int, discard: bool) -> None:
    sigmas = sigmas_for(schedule, MODEL, steps, discard)
    assert len(sigmas) == steps + 1 and sigmas[-1] == 0
    assert all(sigma > lower for sigma, lower in pairwise(sigmas))


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 999])
def test_every_schedule_starts_with_the_same_bits(steps: int) -> None:
    starts = {sigmas_for(row.schedule, MODEL, steps, row.discards_penultimate_sigma)[0] for row in SAMPLERS}
    assert len(starts) == 1 and starts.pop() == pytest.approx(14.6146, abs=1e-4)


@each_schedule
def test_one_step_goes_from_the_most_noise_to_none(schedule: str) -> None:
    assert sigmas_for(schedule, MODEL, 1, False) == sigmas_for(schedule, MODEL, 1, True)
    assert sigmas_for(schedule, MODEL, 1, False) == (pytest.approx(MODEL.sigma_max), 0.0)


@each_schedule
def test_sigmas_are_float32_numbers(schedule: str) -> None:
    sigmas = sigmas_for(schedule, MODEL, 20, False)
    assert torch.tensor(sigmas, dtype=torch.float32).double().tolist() == list(sigmas)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 50])
def test_equals_k_diffusion(steps: int) -> None:
    betas = torch.linspace(
        STABLE_DIFFUSION["beta_start"] ** 0.5, STABLE_DIFFUSION["beta_end"] ** 0.5, 1000, dtype=torch.float64
    )
    alphas = (1 - betas**2).cumprod(0)
    external = k_diffusion("external")
    discrete = external.DiscreteSchedule(((1 - alphas) / alphas) ** 0.5, quantize=False)
    karras = k_diffusion("sampling").get_sigmas_karras(steps, discrete.sigma_min, discrete.sigma_max)
    for schedule, theirs in [("uniform", discrete.get_sigmas(steps)), ("karras", karras)]:
        ours = torch.tensor(sigmas_for(schedule, MODEL, steps, False), dtype=theirs.dtype)
        torch.testing.assert_close(ours, theirs, rtol=3e-6, atol=0)
    sigmas = torch.logspace(-1.5, 1.15, 50, dtype=torch.float64)
    times = torch.tensor([MODEL.time_at(float(sigma)) for sigma in sigmas])
    torch.testing.assert_close(times.double(), discrete.sigma_to_t(sigmas).double(), rtol=0, atol=1e-3)
