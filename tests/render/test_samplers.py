import inspect
import math
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    StableDiffusionPipeline,
)

from farm.cell import Settings
from farm.errors import CellFailed
from farm.questions import Draw
from farm.render.parameterization import parameterization_of
from farm.render.samplers import SAMPLERS
from farm.render.samplers.dpm import dpm_adaptive
from farm.render.samplers.lms import multistep_weights
from farm.render.schedules import sigmas_for
from farm.resolving import resolved
from farm.sampling import BUILT_IN, Sampler
from farm.weights.checkpoint import Networks
from tests.render.on_the_model import decoded, k_diffusion_model, k_diffusion_sigmas, with_guidance
from tests.render.oracles import Recorded, bent, drive, in_float64, k_diffusion, stable_diffusion
from tests.render.rendering import LEVELS, Counting, apart, render

SHAPE = (1, 4, 3, 5)
MODEL = stable_diffusion()
OF_OTHERS = {"restart", "ddim", "plms", "unipc", "lcm"}
ROWS = [row for row in BUILT_IN.samplers if row.algorithm not in OF_OTHERS]
"""Those that k-diffusion defines."""

CASES = [
    (row, schedule)
    for row in ROWS
    for schedule in (("uniform", "karras", "exponential") if row.takes_schedules else (row.schedule,))
]
CHURN = [
    {"s_churn": 2.0},
    {"s_churn": 40.0, "s_noise": 1.007},  # past what one step may add
    {"s_churn": 4.0, "s_tmin": 0.3, "s_tmax": 5.0},
]
ETA = [{"eta": 0.0}, {"eta": 0.5}, {"eta": 0.7, "s_noise": 1.05}]


def name_of(row: Any) -> str:
    return row.name if isinstance(row, Sampler) else str(row)


every_sampler = pytest.mark.parametrize("row", ROWS, ids=name_of)
every_case = pytest.mark.parametrize(("row", "schedule"), CASES, ids=name_of)


def sigmas_of(row: Sampler, steps: int, schedule: str = "uniform") -> tuple[float, ...]:
    settings = Settings("", "", sampler=row.name, steps=steps, schedule=schedule)
    return sigmas_for(settings, row, BUILT_IN.schedules[schedule], MODEL)


def normals(seed: int = 7) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def start(sigma: float, latents: float = 0.0) -> torch.Tensor:
    return latents + next(normals(3)) * sigma


def ours(
    row: Sampler, x: torch.Tensor, sigmas: tuple[float, ...], options: dict[str, Any]
) -> tuple[torch.Tensor, int, Recorded]:
    """What comes out, how often the model was asked, and the noise."""
    noise = Recorded(normals())
    x, asked = drive(SAMPLERS[row.algorithm](x, sigmas, noise, **options, **row.fixed), bent)
    return x, len(asked), noise


def theirs(
    row: Sampler, x: torch.Tensor, sigmas: tuple[float, ...], options: dict[str, Any]
) -> tuple[Any, Recorded]:
    """k-diffusion, called as A1111 calls it: with the row's eta wherever it takes one."""

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return bent(x, sigma.view(-1, 1, 1, 1))

    noise = Recorded(normals())
    with in_float64(), noise.as_torch_draws():
        result = k_diffusion_sampled(row, model, x, torch.tensor(sigmas), options, noise)
    return result, noise


def k_diffusion_sampled(
    row: Sampler, model: Any, x: torch.Tensor, sigmas: torch.Tensor, options: dict[str, float], noise: Any
) -> torch.Tensor:
    function = getattr(k_diffusion("sampling"), f"sample_{row.algorithm}")
    takes = inspect.signature(function).parameters
    given: dict[str, Any] = dict(row.fixed) | options
    assert ("eta" in takes) == (row.eta is not None)
    if row.eta is not None:
        given.setdefault("eta", row.eta)
    if "noise_sampler" in takes:
        given["noise_sampler"] = noise
    if "sigmas" in takes:
        return function(model, x, sigmas, disable=True, **given)
    given = {"sigma_min": sigmas[-2].item(), "sigma_max": sigmas[0].item()} | given
    if "n" in takes:
        given["n"] = len(sigmas) - 1
    return function(model, x, disable=True, **given)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


FAIL_AT_ONE_STEP = {"dpmpp_2m_sde", "dpmpp_3m_sde", "dpm_fast", "dpm_adaptive"}
"""In k-diffusion; the tests of one step say how."""


@pytest.mark.parity
@pytest.mark.parametrize(
    ("row", "schedule", "steps"),
    [
        pytest.param(row, schedule, steps, id=f"{row.name} {schedule} {steps}")
        for row, schedule in CASES
        for steps in (1, 2, 3, 4, 5, 6, 20)
        if steps > 1 or row.algorithm not in FAIL_AT_ONE_STEP
    ],
)
def test_equals_k_diffusion_in_float64(row: Sampler, schedule: str, steps: int) -> None:
    sigmas = sigmas_of(row, steps, schedule)
    x = start(sigmas[0])
    close(ours(row, x, sigmas, {})[0], theirs(row, x, sigmas, {})[0])


@pytest.mark.parity
@pytest.mark.parametrize(
    ("row", "options"),
    [
        pytest.param(row, options, id=f"{row.name} {options}")
        for row in ROWS
        for options in (CHURN if "s_churn" in row.options else ETA if row.eta is not None else ())
    ],
)
def test_options_mean_what_they_mean_in_k_diffusion(row: Sampler, options: dict[str, float]) -> None:
    sigmas = sigmas_of(row, 10)
    x = start(sigmas[0])
    close(ours(row, x, sigmas, options)[0], theirs(row, x, sigmas, options)[0])


@pytest.mark.parity
@pytest.mark.parametrize("begun", [1, 4, 8])
@every_case
def test_begins_at_any_sigma(row: Sampler, schedule: str, begun: int) -> None:
    sigmas = sigmas_of(row, 10, schedule)[begun:]
    x = start(sigmas[0], latents=0.8)
    close(ours(row, x, sigmas, {})[0], theirs(row, x, sigmas, {})[0])


@pytest.mark.parity
@pytest.mark.parametrize("row", [row for row in ROWS if row.eta and not row.chooses_steps], ids=name_of)
def test_eta_so_large_that_all_noise_is_drawn_anew(row: Sampler) -> None:
    sigmas = sigmas_of(row, 10)
    x = start(sigmas[0])
    close(ours(row, x, sigmas, {"eta": 3.0})[0], theirs(row, x, sigmas, {"eta": 3.0})[0])


@pytest.mark.parity
@pytest.mark.parametrize("name", ["DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"])
def test_one_step_is_the_denoised_picture_where_k_diffusion_fails(name: str) -> None:
    row = BUILT_IN[name]
    sigmas = sigmas_of(row, 1)
    x = start(sigmas[0])
    with pytest.raises(UnboundLocalError):  # it keeps the length of a step that has none
        theirs(row, x, sigmas, {})
    close(ours(row, x, sigmas, {})[0], bent(x, sigmas[0]))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["DPM fast", "DPM adaptive"])
def test_one_step_ends_at_the_smallest_sigma_of_the_model(name: str) -> None:
    """Which A1111 gives them; the schedule of one step has it not."""
    row = BUILT_IN[name]
    first, low = sigmas_of(row, 1)[0], MODEL.sigma_min
    x = start(first)
    given = {"sigma_min": low}
    close(ours(row, x, (first, 0.0), given)[0], theirs(row, x, (first, 0.0), given)[0])


@pytest.mark.parity
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(
    "options",
    [
        {"order": 2},
        {"rtol": 0.01, "atol": 0.002},
        {"h_init": 2.5},  # too long: taken again
        {"pcoeff": 0.2, "icoeff": 0.7, "dcoeff": 0.1},
        {"h_init": 1.0, "accept_safety": 0.95},
    ],
    ids=str,
)
def test_dpm_adaptive_controls_its_steps_as_k_diffusion_does(options: dict[str, float], eta: float) -> None:
    row = BUILT_IN["DPM adaptive"]
    sigmas = sigmas_of(row, 20)
    x = start(sigmas[0])
    picture, asked, noise = ours(row, x, sigmas, options | {"eta": eta})
    (expected, info), drawn = theirs(row, x, sigmas, options | {"eta": eta, "return_info": True})
    close(picture, expected)
    assert len(noise.steps) == len(drawn.steps) == info["n_accept"]
    assert asked == info["nfe"] - info["n_reject"]  # a step taken again begins where it began
    assert info["n_reject"] > 0 or options.keys() != {"h_init"}


def test_dpm_adaptive_gives_up_on_latents_that_are_no_numbers() -> None:
    sampling = dpm_adaptive(torch.full(SHAPE, math.nan), (14.6, 0.03, 0.0), Recorded(normals()))
    with pytest.raises(CellFailed, match="hold NaN"):
        drive(sampling, bent)


def test_dpm_adaptive_ends_where_no_step_is_short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.render.samplers.dpm.MOST_EVALUATIONS", 200)
    places = count()
    sampling = dpm_adaptive(torch.ones(SHAPE), (14.6, 0.03, 0.0), Recorded(normals()))
    with pytest.raises(CellFailed, match="not done after 20"):
        drive(sampling, lambda x, sigma: torch.full_like(x, (-1) ** next(places) * 1e4))


@pytest.mark.parity
@pytest.mark.parametrize("row", [row for row in ROWS if row.brownian], ids=name_of)
def test_brownian_noise_is_asked_for_the_steps_of_k_diffusion(row: Sampler) -> None:
    sigmas = sigmas_of(row, 6)
    x = start(sigmas[0])
    steps = ours(row, x, sigmas, {})[2].steps
    assert len(steps) > 4
    np.testing.assert_allclose(steps, theirs(row, x, sigmas, {})[1].steps, rtol=1e-12)


@pytest.mark.parametrize("steps", range(1, 11))
@pytest.mark.parametrize("row", [row for row in ROWS if not row.chooses_steps], ids=name_of)
def test_asks_as_often_as_the_plan_says(row: Sampler, steps: int) -> None:
    sigmas = sigmas_of(row, steps)
    assert ours(row, start(sigmas[0]), sigmas, {})[1] == row.evaluations(steps)


@every_sampler
def test_draws_noise_only_if_it_says_so(row: Sampler) -> None:
    sigmas = sigmas_of(row, 5)
    noise = ours(row, start(sigmas[0]), sigmas, {})[2]
    assert bool(noise.steps) == row.stochastic
    if row.takes_schedules:  # none is drawn for the step that ends at 0
        assert len(noise.steps) in (0, 4, 8)


@every_sampler
def test_first_question_is_the_very_tensor_it_was_given(row: Sampler) -> None:
    x = torch.randn(SHAPE)
    asked = SAMPLERS[row.algorithm](x, sigmas_of(row, 4), Recorded([]), **row.fixed).send(None)
    question = asked[0] if isinstance(asked, tuple) else asked
    assert question.x is x and question.step == 0  # what sharing the first rows relies on


@pytest.mark.parametrize("row", [row for row in ROWS if "s_churn" in row.options], ids=name_of)
def test_churn_is_drawn_before_the_question(row: Sampler) -> None:
    x, sigmas = torch.zeros(SHAPE), sigmas_of(row, 4)
    sampling = SAMPLERS[row.algorithm](x, sigmas, Recorded([]), s_churn=1.0)
    assert isinstance(sampling.send(None), Draw)
    question = sampling.send(torch.ones(SHAPE))
    assert question.sigma == sigmas[0] * 1.25
    assert question.x.unique().item() == pytest.approx(sigmas[0] * 0.75)  # sqrt(1.25² − 1)


@pytest.mark.parametrize("row", [row for row in ROWS if row.brownian], ids=name_of)
def test_brownian_noise_is_drawn_while_the_network_is_busy(row: Sampler) -> None:
    sampling, answers = SAMPLERS[row.algorithm](torch.zeros(SHAPE), sigmas_of(row, 4), Recorded([])), None
    kinds = set()
    for _ in range(3):
        asked = sampling.send(answers)
        kinds.add(tuple(type(one).__name__ for one in asked))
        answers = [torch.zeros(SHAPE)] * 2
    assert kinds == {("Denoise", "Draw")}


def test_dpm_2_leaves_out_the_sigma_before_the_last_and_keeps_the_steps() -> None:
    whole = sigmas_of(BUILT_IN["Heun"], 11, "karras")
    assert sigmas_of(BUILT_IN["DPM2"], 10, "karras") == (*whole[:10], 0.0)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_multistep_weights_integrate_polynomials_exactly(order: int) -> None:
    sigmas = (14.6, 9.1, 4.2, 1.3, 0.4)
    weights = multistep_weights(sigmas, 3, order)
    points = [sigmas[3 - back] for back in range(order)]
    for power in range(order):
        integral = (sigmas[4] ** (power + 1) - sigmas[3] ** (power + 1)) / (power + 1)
        assert sum(w * p**power for w, p in zip(weights, points)) == pytest.approx(integral, abs=1e-9)


def asked_for(sampler: str, schedule: str = "automatic", steps: int = 4) -> Settings:
    asked = {
        "model": "tiny", "prompt": "portrait of beautiful cat", "negative_prompt": "blurry", "cfg_scale": 4.0,
        "sampler": sampler, "schedule": schedule, "steps": steps,
        "seed": 3805052747, "width": 64, "height": 64,
    }  # fmt: skip
    return resolved(asked, BUILT_IN)


@pytest.fixture(scope="module")
def pictures(networks: Networks) -> dict[tuple[str, str], np.ndarray]:
    """Ours, of all cases, rendered together."""
    wanted = [asked_for(row.name, schedule) for row, schedule in CASES]
    names = [(row.name, schedule) for row, schedule in CASES]
    return dict(zip(names, render(wanted, Counting(networks)), strict=True))


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:Should have t")  # k-diffusion does not round to its tree's ends
@every_case
@pytest.mark.slow
def test_pictures_equal_k_diffusion_on_the_model(
    row: Sampler, schedule: str, pictures: dict[tuple[str, str], np.ndarray], networks: Networks
) -> None:
    theirs = k_diffusion_picture(row, asked_for(row.name, schedule), networks)
    assert apart(pictures[row.name, schedule], theirs) <= LEVELS


@torch.inference_mode()
def k_diffusion_picture(row: Sampler, wanted: Settings, networks: Networks) -> np.ndarray:
    eps = k_diffusion_model(wanted, networks)

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return with_guidance(eps, wanted, x, sigma)

    sigmas = k_diffusion_sigmas(row, wanted, eps)
    if row.brownian:  # the last bits of a sigma move it along the path, whose noise differs by their root
        schedule, own = BUILT_IN.schedules[wanted.schedule], parameterization_of(networks.scheduler_config)
        sigmas = torch.tensor(sigmas_for(wanted, row, schedule, own))
    generator = torch.Generator().manual_seed(wanted.seed)
    drawn = (torch.randn((1, 4, 8, 8), generator=generator) for _ in count())
    x = next(drawn) * sigmas[0]
    noise: Any = Recorded(drawn)
    if row.brownian:
        tree = k_diffusion("sampling").BrownianTreeNoiseSampler
        noise = tree(x, sigmas[sigmas > 0].min(), sigmas.max(), seed=wanted.seed)
    return decoded(k_diffusion_sampled(row, model, x, sigmas, {}, noise), networks)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        ("Euler", EulerDiscreteScheduler),
        ("Euler a", EulerAncestralDiscreteScheduler),
        ("Heun", HeunDiscreteScheduler),
        ("LMS", LMSDiscreteScheduler),
    ],
)
def test_pictures_equal_diffusers_pipeline(
    sampler: str, scheduler: type, networks: Networks, pipeline: StableDiffusionPipeline
) -> None:
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
    wanted = asked_for(sampler)
    theirs = pipeline(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.cfg_scale,
        generator=torch.Generator().manual_seed(wanted.seed),
        width=64,
        height=64,
    ).images[0]
    assert apart(render([wanted], Counting(networks))[0], np.asarray(theirs)) <= LEVELS
