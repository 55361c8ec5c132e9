from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torchsde._brownian import brownian_interval

from farm.cell import Settings
from farm.diffusers_schedulers import scheduler_facts, suited
from farm.errors import CellFailed
from farm.questions import Output
from farm.render.brownian import _randn
from farm.render.noise import CellNoise
from farm.render.philox import PhiloxNormals
from farm.render.samplers.scheduler import _as_pipeline_has_it, scheduled
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from tests.render.rendering import LEVELS, Counting, apart, render
from tests.render.unit_variance import apart_from_diffusers, settings

STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
"""As the folders of Stable Diffusion 1.5 say."""

TINY_CATS = STABLE_DIFFUSION | {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
SHAPE = (4, 3, 5)
WORDS = {"SASolverScheduler": "(algorithm_type=data_prediction)"}
"""What a class needs where it does not know the word that tiny-cats says."""

CLASSES = sorted(suited())
OF_FLOW = {name for name in CLASSES if scheduler_facts(name).is_flow}
every_class = pytest.mark.parametrize("name", CLASSES)


def config_for(name: str) -> dict[str, Any]:
    return FLOW if name in OF_FLOW else STABLE_DIFFUSION


def drawn(seed: int = 7) -> tuple[torch.Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=generator, dtype=torch.float64), generator


def network(x: torch.Tensor, time: float) -> torch.Tensor:
    """Smooth in both, and bounded."""
    return torch.tanh(1.3 * x) * (0.5 + time / 2000)


def sampling(name: str, steps: int, config: dict[str, Any], noise: Any = None, **others: Any) -> Any:
    row = BUILT_IN[f"diffusers:{name}"]
    first, generator = noise or drawn()
    eta = {} if row.eta is None else {"eta": row.eta}
    return scheduled(first, steps, config, generator, **(eta | others), **row.fixed)


def ours(
    name: str, steps: int, config: dict[str, Any], noise: Any = None, **others: Any
) -> tuple[torch.Tensor, list[Output]]:
    running, asked, answer = sampling(name, steps, config, noise, **others), [], None
    while True:
        try:
            question = running.send(answer)
        except StopIteration as end:
            return end.value, asked
        asked.append(question)
        answer = network(question.input, question.time)


def theirs(name: str, steps: int, config: dict[str, Any], **options: Any) -> torch.Tensor:
    """The loop of diffusers' pipelines."""
    original = getattr(diffusers, config["_class_name"]).from_config(config)
    scheduler = getattr(diffusers, name).from_config(original.config, **options)
    scheduler.set_timesteps(steps)
    noise, generator = drawn()
    x = noise[None] * getattr(scheduler, "init_noise_sigma", 1)
    facts = scheduler_facts(name)
    given = {"generator": generator} if "generator" in facts.step else {}
    given |= {"eta": 0.0} if "eta" in facts.step else {}
    for time in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(shown, float(time)), time, x, **given).prev_sample
    return x[0]


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 7])
@every_class
def test_is_diffusers_own_loop_to_the_bit_in_float64(name: str, steps: int) -> None:
    seed = {"noise_sampler_seed": 7} if "noise_sampler_seed" in scheduler_facts(name).options else {}
    x, _ = ours(name, steps, config_for(name))
    assert torch.equal(x, theirs(name, steps, config_for(name), **seed))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "solver_order": 3}),
        (
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "timestep_spacing": "trailing"},
        ),
        ("UniPCMultistepScheduler", {"disable_corrector": [0, 1], "solver_order": 3}),
        ("EulerDiscreteScheduler", {"use_exponential_sigmas": True, "timestep_spacing": "linspace"}),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
        ("PNDMScheduler", {"skip_prk_steps": False}),
    ],
)
def test_options_are_those_of_from_config(name: str, options: dict[str, Any]) -> None:
    inside = ", ".join(f"{option}={value}" for option, value in options.items())
    x, asked = ours(f"{name}({inside})", 6, STABLE_DIFFUSION)
    assert torch.equal(x, theirs(name, 6, STABLE_DIFFUSION, **options))
    assert len(asked) == BUILT_IN[f"diffusers:{name}({inside})"].evaluations(6)


@pytest.mark.parametrize("steps", [1, 5, 20])
@every_class
def test_asks_as_often_as_the_plan_says(name: str, steps: int) -> None:
    x, asked = ours(name, steps, config_for(name))
    assert len(asked) == BUILT_IN[f"diffusers:{name}"].evaluations(steps)
    indices = [question.step for question in asked]
    assert indices == sorted(indices) and set(indices) == set(range(steps))
    assert x.shape == SHAPE and x.isfinite().all()
    assert all(question.input.shape == SHAPE for question in asked)


@every_class
def test_adds_noise_if_the_row_says_so_and_only_its_own(name: str) -> None:
    first, _ = drawn()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, again, other = (
        ours(name, 4, config_for(name), (first, torch.Generator().manual_seed(seed)))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert torch.equal(one, other) != BUILT_IN[f"diffusers:{name}"].stochastic
    assert torch.equal(torch.get_rng_state(), state)


@every_class
def test_cells_at_once_do_not_disturb_each_other(name: str) -> None:
    """One instance each: two that run in step end where each ends alone."""
    running = [sampling(name, 3, config_for(name), drawn(seed)) for seed in (1, 2)]
    answers: list[Any] = [None, None]
    ends: list[torch.Tensor] = []
    while len(ends) < 2:
        for index, each in enumerate(running):
            try:
                question = each.send(answers[index])
            except StopIteration as end:
                ends.append(end.value)
            else:
                answers[index] = network(question.input, question.time)
    assert all(
        torch.equal(end, ours(name, 3, config_for(name), drawn(seed))[0]) for end, seed in zip(ends, (1, 2))
    )


def test_eta_and_churn_reach_the_scheduler() -> None:
    for name, option in [("DDIMScheduler", {"eta": 0.5}), ("EulerDiscreteScheduler", {"s_churn": 2.0})]:
        with_noise, without = ours(name, 4, STABLE_DIFFUSION, **option)[0], ours(name, 4, STABLE_DIFFUSION)[0]
        assert not torch.equal(with_noise, without)


def test_zero_terminal_snr_reaches_the_scheduler() -> None:
    asked_for, _ = ours("DDIM", 4, STABLE_DIFFUSION, zero_terminal_snr=True)
    assert torch.equal(asked_for, ours("DDIM(rescale_betas_zero_snr=true)", 4, STABLE_DIFFUSION)[0])
    with pytest.raises(CellFailed, match="HeunDiscreteScheduler: it has no rescale_betas_zero_snr"):
        ours("HeunDiscrete", 4, STABLE_DIFFUSION, zero_terminal_snr=True)
    ours("HeunDiscrete", 4, STABLE_DIFFUSION, zero_terminal_snr=False)


@pytest.mark.parametrize(
    ("name", "steps", "config", "words"),
    [
        ("FlowMatchEulerDiscrete", 4, STABLE_DIFFUSION, "flow_prediction; the checkpoint's predicts eps"),
        ("DDIM", 4, FLOW, "predict epsilon; the checkpoint's predicts flow_prediction$"),
        ("DPMSolverMultistep", 4, FLOW, r"needs \(prediction_type=flow_prediction, use_flow_sigmas=true\)"),
        ("DPMSolverMultistep(use_flow_sigmas=true)", 4, STABLE_DIFFUSION, "over flow's noise levels"),
        ("DPMSolverMultistep(prediction_type=flow_prediction)", 4, FLOW, "over training's noise levels"),
        ("DDIM(prediction_type=v_prediction)", 4, STABLE_DIFFUSION, "predict v_prediction; the check"),
        ("LCM", 51, STABLE_DIFFUSION, "original_steps"),
        ("PNDM(skip_prk_steps=false)", 3, STABLE_DIFFUSION, "ValueError"),
        ("UniPCMultistep(use_beta_sigmas=true, use_karras_sigmas=true)", 4, STABLE_DIFFUSION, "Only one"),
        ("SASolver", 4, TINY_CATS, r"the checkpoint says algorithm_type=dpmsolver\+\+$"),
    ],
)  # fmt: skip
def test_what_does_not_fit_fails_in_one_line(
    name: str, steps: int, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(CellFailed, match=words) as caught:
        ours(name, steps, config)
    assert str(caught.value).startswith(f"{BUILT_IN[f'diffusers:{name}'].name}: ")
    assert "\n" not in str(caught.value)


def test_a_network_of_v_is_read_as_such() -> None:
    config = STABLE_DIFFUSION | {"prediction_type": "v_prediction"}
    v, eps = (ours("DDIM", 4, each)[0] for each in (config, STABLE_DIFFUSION))
    assert v.isfinite().all() and not torch.equal(v, eps)
    assert ours("DDIM", 4, config | {"_class_name": "Unheard-of"})[0].isfinite().all()


def test_flow_is_drawn_by_solvers_that_are_told_of_it() -> None:
    solver = "DPMSolverMultistep(prediction_type=flow_prediction, use_flow_sigmas=true)"
    assert ours(solver, 4, FLOW)[0].isfinite().all()


@pytest.mark.parity
@pytest.mark.parametrize(
    "said",
    [{}, {"steps_offset": 0}, {"clip_sample": True}, {"clip_sample": True, "steps_offset": 0, "new": 1}],
)
@pytest.mark.parametrize("kind", ["PNDMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_inherits_what_the_pipeline_has(
    kind: str, said: dict[str, Any], pipeline: StableDiffusionPipeline
) -> None:
    config = {key: STABLE_DIFFUSION[key] for key in ("beta_start", "beta_end", "beta_schedule")}
    config |= {"_class_name": kind} | said
    whole = StableDiffusionPipeline(
        **(pipeline.components | {"scheduler": getattr(diffusers, kind).from_config(config)}),
        requires_safety_checker=False,
    )
    for heir in (diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler):
        theirs = dict(heir.from_config(whole.scheduler.config).config)
        del theirs["_diffusers_version"]
        assert dict(heir.from_config(_as_pipeline_has_it(config)).config) == theirs


def test_says_nothing_on_the_terminal(capfd: pytest.CaptureFixture[str], recwarn: Any) -> None:
    for name in CLASSES:
        ours(name, 2, config_for(name) | {"unheard_of": 1})
    assert capfd.readouterr() == ("", "") and not list(recwarn)


@pytest.mark.parity
@pytest.mark.parametrize("name", [name for name in CLASSES if name not in OF_FLOW])
@pytest.mark.slow
def test_pictures_equal_diffusers_pipeline(
    name: str, networks: Networks, pipeline: StableDiffusionPipeline
) -> None:
    wanted = settings(f"diffusers:{name}{WORDS.get(name, '')}", 4)
    options = dict(BUILT_IN[wanted.sampler].fixed["chosen"].options)
    if "noise_sampler_seed" in scheduler_facts(name).options:  # diffusers would draw one
        options["noise_sampler_seed"] = wanted.seed
    scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config, **options)
    assert apart_from_diffusers(wanted, scheduler, networks, pipeline) <= LEVELS


def mixed() -> Iterator[Settings]:
    yield settings("diffusers:DDIM", 3)
    yield settings("diffusers:DDIM", 3, seed=5)
    yield settings("diffusers:DDIM", 5, eta=1.0)
    yield settings("diffusers:DPMSolverSDE", 3)
    yield settings("diffusers:UniPCMultistep(solver_order=3)", 5, cfg_scale=1.0)
    yield settings("diffusers:KDPM2AncestralDiscrete", 3)
    yield settings("Euler a", 4)
    yield settings("DPM++ 2M Karras", 5)


@pytest.mark.slow
def test_a_mixed_batch_equals_each_alone(networks: Networks) -> None:
    cells = list(mixed())
    together = render(cells, Counting(networks))
    for cell, picture in zip(cells, together, strict=True):
        assert apart(render([cell], Counting(networks))[0], picture) <= LEVELS


def test_settings_of_other_samplers_change_nothing() -> None:
    plain = settings("diffusers:DDIM", 3)
    assert settings("diffusers:ddim", 3, sigma_min=0.1, rho=3.0, s_churn=2.0, schedule="karras") == plain
    assert settings("diffusers:DDIM", 3, eta=0.5) != plain


def test_its_generator_goes_on_from_the_initial_noise() -> None:
    cell = settings("diffusers:DDPM", 3)
    noise = CellNoise(cell, SHAPE, torch.device("cpu"))
    generator = torch.Generator().manual_seed(cell.seed)
    assert torch.equal(noise.initial.draw(), torch.randn(SHAPE, generator=generator))
    assert torch.equal(torch.randn(SHAPE, generator=noise.generator), torch.randn(SHAPE, generator=generator))


def test_with_rng_nv_the_initial_noise_alone_is_nv() -> None:
    cell = settings("diffusers:DDPM", 3, rng="nv", eta_noise_seed_delta=3)
    noise = CellNoise(cell, SHAPE, torch.device("cpu"))
    assert torch.equal(noise.initial.draw(), PhiloxNormals(cell.seed).draw(SHAPE))
    assert noise.generator.initial_seed() == cell.seed + 3


def test_a_brownian_path_is_drawn_on_the_cpu_wherever_the_latents_are(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torchsde by itself draws on the device of the latents."""
    made, own = [], brownian_interval._randn

    def spy(size: Any, dtype: Any, device: Any, seed: Any) -> torch.Tensor:
        made.append(_randn.get())
        return own(size, dtype, device, seed)

    monkeypatch.setattr(brownian_interval, "_randn", spy)
    render([settings("diffusers:DPMSolverSDE", 3)], Counting(networks))
    assert made and None not in made
    drawn = made[0]((2, 3), 5)
    assert torch.equal(drawn, torch.randn(2, 3, generator=torch.Generator().manual_seed(5)))
