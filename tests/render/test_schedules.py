from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from scipy import stats

from farm.cell import Settings
from farm.counting import ddim_stride
from farm.errors import CellFailed
from farm.render.parameterization import Parameterization, parameterization_of, shifted
from farm.render.schedules import SCHEDULES, Sigmas, sigmas_for
from farm.sampling import BUILT_IN, SAMPLERS, Schedule
from tests.render.oracles import STABLE_DIFFUSION, k_diffusion, stable_diffusion

MODEL = stable_diffusion()
FLOW = parameterization_of({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
ZERO_SNR = parameterization_of(STABLE_DIFFUSION, zero_terminal_snr=True)
STEPS = [1, 2, 3, 20, 150, 1000]

each_schedule = pytest.mark.parametrize("schedule", BUILT_IN.schedules)
each_model = pytest.mark.parametrize("model", [MODEL, FLOW, ZERO_SNR], ids=["eps", "flow", "zero snr"])


def sigmas(
    schedule: str | Schedule,
    steps: int,
    model: Parameterization = MODEL,
    sampler: str = "Euler",
    **others: Any,
) -> Sigmas:
    row = BUILT_IN.schedules[schedule] if isinstance(schedule, str) else schedule
    return sigmas_for(
        Settings("tiny", "a cat", sampler=sampler, steps=steps, schedule=row.name, **others),
        BUILT_IN[sampler],
        row,
        model,
    )


def test_every_row_has_its_function() -> None:
    assert {row.function for row in BUILT_IN.schedules.values()} == set(SCHEDULES)


@each_schedule
def test_makes_as_many_steps_as_its_row_says(schedule: str) -> None:
    row = BUILT_IN.schedules[schedule]
    asked = range(1, 1001) if schedule == "ddim" else (*range(1, 151), 333, 999, 1000)
    assert [len(sigmas(schedule, steps)) - 1 for steps in asked] == [*map(row.steps, asked)]


@each_model
@pytest.mark.parametrize("steps", STEPS)
@each_schedule
def test_falls_from_the_model_range_to_zero(schedule: str, steps: int, model: Parameterization) -> None:
    made = sigmas(schedule, steps, model)
    assert made[-1] == 0 and all(sigma > lower for sigma, lower in pairwise(made))
    assert np.float32(model.sigma_min) <= made[-2] and made[0] <= np.float32(model.sigma_max)


@each_model
@pytest.mark.parametrize("steps", STEPS)
def test_all_that_start_at_the_largest_sigma_start_with_its_very_bits(
    steps: int, model: Parameterization
) -> None:
    rows = [row for row in BUILT_IN.schedules.values() if row.starts_at_sigma_max]
    starts = {sigmas(row, steps, model)[0] for row in rows}
    assert len(rows) >= 7 and starts == {float(np.float32(model.sigma_max))}
    limited = {sigmas(row, steps, model, sigma_max=9.7)[0] for row in rows if row.options}
    assert limited == {float(np.float32(9.7))}


@each_schedule
def test_sigmas_are_float32_numbers(schedule: str) -> None:
    made = sigmas(schedule, 20)
    assert torch.tensor(made, dtype=torch.float32).double().tolist() == list(made)


@pytest.mark.parametrize("steps", [1, 2, 10, 150])
@each_schedule
def test_discarding_schedules_a_step_more_and_drops_its_sigma(schedule: str, steps: int) -> None:
    whole = sigmas(schedule, steps + 1)
    assert sigmas(schedule, steps, discard_next_to_last_sigma=True) == (*whole[:-2], 0.0)
    assert sigmas(schedule, steps, sampler="DPM2 a") == (*whole[:-2], 0.0)
    plain = sigmas(schedule, steps)
    assert sigmas(schedule, steps, sampler="DPM2 a", discard_next_to_last_sigma=False) == plain


@pytest.mark.parametrize("steps", [1, 5, 20])
@each_schedule
def test_ends_at_the_smallest_sigma_where_the_sampler_does(schedule: str, steps: int) -> None:
    *positive, _ = plain = sigmas(schedule, steps)
    smallest = float(np.float32(MODEL.sigma_min))
    reached = positive[-1] == smallest
    assert sigmas(schedule, steps, sampler="DDIM") == (plain if reached else (*positive, smallest))
    if steps > 1:
        assert reached == (schedule not in ("sgm_uniform", "simple", "ddim"))


def test_ends_at_zero_where_the_smallest_sigma_is_undercut() -> None:
    made = sigmas("karras", 5, sampler="DDIM", sigma_min=0.01)
    assert made[-2:] == (pytest.approx(0.01), 0.0)


# against the references


def close(ours: Sigmas, theirs: Any) -> None:
    np.testing.assert_allclose(ours, np.asarray(theirs, dtype=np.float64), rtol=1e-6, atol=0)


@pytest.fixture(scope="module")
def discrete() -> Any:
    """k-diffusion's in float64; the interpolated timesteps it rounds to float32 all the same."""
    return k_diffusion("external").DiscreteSchedule(torch.from_numpy(MODEL.sigmas.copy()), quantize=False)


@pytest.mark.parity
@pytest.mark.parametrize("steps", STEPS)
def test_uniform_is_that_of_k_diffusion(steps: int, discrete: Any) -> None:
    np.testing.assert_allclose(sigmas("uniform", steps), discrete.get_sigmas(steps), rtol=2e-6)


@pytest.mark.parity
@pytest.mark.parametrize("limits", [{}, {"sigma_min": 0.1, "sigma_max": 10.0}], ids=["model's", "given"])
@pytest.mark.parametrize("steps", STEPS)
def test_karras_and_exponential_are_those_of_k_diffusion(steps: int, limits: dict[str, float]) -> None:
    low, high = limits.get("sigma_min", MODEL.sigma_min), limits.get("sigma_max", MODEL.sigma_max)
    reference = k_diffusion("sampling")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        karras = {rho: reference.get_sigmas_karras(steps, low, high, rho=rho) for rho in (1.0, 7.0, 11.5)}
        exponential = reference.get_sigmas_exponential(steps, low, high)
    finally:
        torch.set_default_dtype(before)
    for rho, theirs in karras.items():
        close(sigmas("karras", steps, rho=rho, **limits), theirs)
    close(sigmas("exponential", steps, **limits), exponential)


@pytest.mark.parity
@pytest.mark.parametrize("steps", STEPS)
def test_beta_karras_and_exponential_are_those_of_diffusers(steps: int) -> None:
    theirs = EulerDiscreteScheduler.from_config(STABLE_DIFFUSION)
    ends = np.array([MODEL.sigma_max, MODEL.sigma_min])
    for schedule in ("beta", "karras", "exponential"):
        converted = getattr(theirs, f"_convert_to_{schedule}")(ends, steps)
        close(sigmas(schedule, steps), [*np.asarray(converted), 0.0])


@pytest.mark.parametrize("steps", STEPS)
def test_beta_is_spaced_as_the_quantiles_of_its_distribution(steps: int) -> None:
    made = sigmas("beta", steps, sigma_min=0.5, sigma_max=8.5)
    shares = stats.beta.cdf((np.array(made[:-1]) - 0.5) / 8, 0.6, 0.6)
    np.testing.assert_allclose(shares, 1 - np.linspace(0, 1, steps), atol=1e-4)


def between(sigma: float) -> float:
    """The timestep of a sigma, as k-diffusion finds it."""
    return float(np.interp(np.log(sigma), np.log(MODEL.sigmas), np.arange(1000)))


@pytest.mark.parametrize("limits", [{}, {"sigma_min": 0.1, "sigma_max": 10.0}], ids=["model's", "given"])
@pytest.mark.parametrize("steps", STEPS)
def test_evenly_spaced_timesteps_are_those_of_a1111_written_out(
    steps: int, limits: dict[str, float], discrete: Any
) -> None:
    first, last = between(limits.get("sigma_max", 99.0)), between(limits.get("sigma_min", 0.001))
    normal = [discrete.t_to_sigma(torch.tensor(time)) for time in np.linspace(first, last, steps)]
    sgm = [discrete.t_to_sigma(torch.tensor(time)) for time in np.linspace(first, last, steps + 1)[:-1]]
    np.testing.assert_allclose(sigmas("normal", steps, **limits), [*normal, 0.0], rtol=2e-6)
    np.testing.assert_allclose(sigmas("uniform", steps, **limits), [*normal, 0.0], rtol=2e-6)
    np.testing.assert_allclose(sigmas("sgm_uniform", steps, **limits), [*sgm, 0.0], rtol=2e-6)


@each_model
@pytest.mark.parametrize("steps", STEPS)
def test_simple_and_ddim_pick_training_sigmas(steps: int, model: Parameterization) -> None:
    simple = [model.sigmas[999 - int(step * 1000 / steps)] for step in range(steps)]
    close(sigmas("simple", steps, model), [*simple, 0.0])
    times = [time + 1 for time in range(0, 999, ddim_stride(steps))]
    close(sigmas("ddim", steps, model), [*model.sigmas[times[::-1]], 0.0])


def test_simple_of_all_training_sigmas_is_all_of_them() -> None:
    close(sigmas("simple", 1000), [*MODEL.sigmas[::-1], 0.0])


def test_ddim_timesteps_are_those_of_compvis_as_a1111_asks_for_them() -> None:
    for steps in range(1, 1001):
        whole = 999 / (1000 // steps)
        asked = min(1000, int(whole) + 1 if whole == int(whole) else steps)
        times = [time + 1 for time in range(0, 1000, 1000 // asked)]
        if asked > 500:
            assert times.pop() == 1000  # which CompVis has not either, and fails
        assert times == list(range(1, 1000, ddim_stride(steps)))
        assert BUILT_IN.schedules["ddim"].steps(steps) == len(times)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 50, 1000])
def test_flow_without_shift_is_spaced_as_that_of_diffusers(steps: int) -> None:
    theirs = FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(steps)
    flow = parameterization_of({"_class_name": "FlowMatchEulerDiscreteScheduler"})
    made = np.array(sigmas("uniform", steps, flow))
    np.testing.assert_allclose((made / (1 + made))[1:], theirs.sigmas[1:], atol=2e-6)
    assert made[0] == pytest.approx(9999)  # where theirs is infinite


@pytest.mark.parity
@pytest.mark.parametrize("steps", [2, 20])
def test_flow_with_shift_ends_lower_than_that_of_diffusers_which_shifts_its_end_twice(steps: int) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(steps)
    once = shifted(np.linspace(1, 0.001, steps), 3.0)
    twice = shifted(np.linspace(1, shifted(0.001, 3.0), steps), 3.0)
    np.testing.assert_allclose(theirs.sigmas[:-1], twice, atol=1e-6)
    made = np.array(sigmas("uniform", steps, FLOW)[:-1])
    np.testing.assert_allclose((made / (1 + made))[1:], once[1:], atol=1e-6)


# what is wrong


@pytest.mark.parametrize(
    ("schedule", "limits", "message"),
    [
        ("karras", {"sigma_min": 20.0}, "sigma_min 20 .* tiny with the schedule karras; less than 14.6.* is"),
        ("uniform", {"sigma_min": 20.0, "sigma_max": 30.0}, "sigma_min 20 .* less than 14.6146 is"),
        ("beta", {"sigma_min": 2.0, "sigma_max": 2.0}, "sigma_min 2 .* less than 2 is"),
        ("exponential", {"sigma_max": 0.02}, "sigma_max 0.02 is not allowed .* more than 0.02917 is"),
    ],
)  # fmt: skip
def test_a_range_that_the_model_does_not_have_fails_the_cell(
    schedule: str, limits: dict[str, float], message: str
) -> None:
    with pytest.raises(CellFailed, match=f"^{message}$"):
        sigmas(schedule, 20, **limits)


@pytest.mark.parametrize(
    ("schedule", "limits"), product(["simple", "ddim"], [{"sigma_min": 20.0}, {"sigma_max": 0.01}])
)
def test_a_range_is_not_looked_at_by_schedules_without_one(schedule: str, limits: dict[str, float]) -> None:
    assert sigmas(schedule, 20, **limits) == sigmas(schedule, 20)


def test_a_plugin_may_bring_a_schedule() -> None:
    def halving(model: Parameterization, steps: int, *, sigma_max: float) -> list[float]:
        return [sigma_max / 2**step for step in range(steps)]

    row = Schedule("halving", "Halving", halving, "a test", options=("sigma_max",))
    assert sigmas(row, 3, sigma_max=8.0) == (8, 4, 2, 0)
    assert sigmas(row, 3, sampler="DPM2", sigma_max=8.0) == (8, 4, 2, 0)
    assert sigmas(row, 2, sampler="DDIM", sigma_max=8.0)[:2] == (8, 4)


@pytest.mark.parametrize(
    ("made", "what"),
    [
        ([3.0, 2.0, 2.0], "sigma 2 after 2; finite, positive, falling ones are allowed"),
        ([3.0, float("nan")], "sigma nan after 3; finite, positive, falling ones are allowed"),
        ([float("inf"), 1.0], "sigma inf; finite, positive, falling ones are allowed"),
        ([2.0, 0.0], "sigma 0 after 2; finite, positive, falling ones are allowed"),
        ([], r"sigmas of shape \(0,\); at least 1 in a row are needed"),
        ([[2.0, 1.0]], r"sigmas of shape \(1, 2\); at least 1 in a row are needed"),
    ],
)
def test_sigmas_that_cannot_be_walked_down_fail_the_cell(made: list[float], what: str) -> None:
    row = Schedule("odd", "Odd", lambda model, steps: made, "a test", options=())
    with pytest.raises(CellFailed, match=f"^schedule odd at 3 steps gives {what}$"):
        sigmas(row, 3)


def test_more_steps_than_training_sigmas_fail_the_cell_where_each_step_needs_its_own() -> None:
    with pytest.raises(CellFailed, match="^schedule simple at 1000 steps gives sigma .* after"):
        sigmas("simple", 1000, sampler="DPM2")


def test_every_sampler_has_sigmas_for_every_schedule_in_one_step() -> None:
    for sampler, schedule in product(SAMPLERS, BUILT_IN.schedules):
        made = sigmas(replace(BUILT_IN.schedules[schedule]), 1, sampler=sampler.name)
        assert len(made) == 2 and made[0] > made[1] >= 0
