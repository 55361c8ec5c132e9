import weakref
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ClassifierFreeGuidance, DDIMScheduler, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from farm.cell import Settings
from farm.costs import guided_of
from farm.questions import Denoise, Draw, Output
from farm.render.deepcache import DeepCache
from farm.render.guidance import Condition, Guidance, Origin, Stage, guided
from farm.render.parameterization import Parameterization, parameterization_of
from farm.render.requests import Predict, Share, Weights
from farm.render.told import Conditioning
from farm.resolving import resolved
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from tests.render.oracles import STABLE_DIFFUSION, Recorded, stable_diffusion
from tests.render.rendering import LEVELS, Counting, apart, render

STATES = {
    name: Conditioning(torch.full((1, 1), value)) for name, value in [("prompt", 1.0), ("negative", 2.0)]
}
EPS = stable_diffusion()
V = parameterization_of(STABLE_DIFFUSION | {"prediction_type": "v_prediction"})
FLOW = parameterization_of({"_class_name": "FlowMatchEulerDiscreteScheduler"})


def conditions(cfg_scale: float) -> tuple[Condition, ...]:
    rows = {"negative": (1 - cfg_scale, 0.0), "prompt": (cfg_scale, 1.0)}
    return tuple(
        Condition((Stage(1, name, STATES[name]),), *numbers) for name, numbers in rows.items() if numbers[0]
    )


def guidance(
    cfg_scale: float, x: torch.Tensor | None = None, model: Parameterization = EPS, **others: Any
) -> Guidance:
    origin = Origin("origin", torch.zeros(1) if x is None else x)
    return Guidance(Weights("m"), model, conditions(cfg_scale), origin, **others)


def asked_and_answered(
    questions: Sequence[Any], with_guidance: Guidance, outputs: dict[str, torch.Tensor]
) -> tuple[list[list[str]], list[Any]]:
    """Which rows each question became, and its answer."""

    def sampling() -> Any:
        answers = []
        for question in questions:
            answers.append((yield question))
        return answers

    running, rows, answer = guided(sampling(), with_guidance), [], None
    while True:
        try:
            requests = running.send(answer)
        except StopIteration as end:
            return rows, end.value.latents
        names = [
            "noise"
            if isinstance(row, Draw)
            else "prompt"
            if row.conditioning is STATES["prompt"]
            else "negative"
            for row in requests
        ]
        rows.append(names)
        answer = tuple(
            request.source.draw() if isinstance(request, Draw) else outputs[name]
            for request, name in zip(requests, names, strict=True)
        )


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(4, 2, 3, dtype=torch.float64, generator=generator)
        for name in ("x", "prompt", "negative")
    }


@pytest.mark.parametrize("cfg_scale", [0, 0.5, 1, 2, 7.5, 30])
def test_combines_as_the_formula_says(cfg_scale: float) -> None:
    outputs, sigma = tensors(), 3.5
    x = outputs["x"]
    questions = [Denoise(x, sigma, 3), Output(x, 500.0, 3)]
    _, [denoised, output] = asked_and_answered(questions, guidance(cfg_scale), outputs)
    eps = outputs["negative"] + cfg_scale * (outputs["prompt"] - outputs["negative"])
    torch.testing.assert_close(denoised, x - sigma * eps)
    torch.testing.assert_close(output, eps)


@pytest.mark.parametrize("interval", [2, 3, 5])
def test_deep_features_of_a_row_that_is_left_out_are_kept_no_longer_than_an_interval(interval: int) -> None:
    def sampling() -> Any:
        for step in range(8):
            yield Denoise(torch.ones(1), 3.5, step), Draw(Recorded([]))
            yield Draw(Recorded([]))  # no evaluation of its own

    running = guided(sampling(), guidance(7, guided=1, deepcache=DeepCache(interval, 0)))
    made: dict[bool, weakref.ref[torch.Tensor]] = {}

    def answer(row: Predict) -> Any:
        if row.features is not None:
            return torch.ones(1)
        deep = torch.zeros(1)
        made[row.conditioning is STATES["prompt"]] = weakref.ref(deep)
        return torch.ones(1), deep

    requests, alive, full = next(running), [], []
    for _ in range(7):
        full.append([row.features is None for row in requests[:-1]])
        requests = running.send((*map(answer, requests[:-1]), torch.zeros(1)))
        requests = running.send((torch.zeros(1),))
        alive.append(made[False]() is not None)
    assert alive == [evaluation < interval for evaluation in range(1, 8)]
    assert full == [[True, True], *([evaluation % interval == 0] for evaluation in range(1, 7))]


def test_shows_the_network_what_the_parameterization_says() -> None:
    x = torch.randn(4, 2, 2)
    for model in (EPS, V, FLOW):
        asking = guidance(7, model=model)
        rows = [
            row for row in asking.rows(Denoise(x, 3.5, 0), asking.conditions, 0) if isinstance(row, Predict)
        ]
        assert [row.time for row in rows] == [model.time_at(3.5)] * 2
        assert all(torch.equal(row.input, model.input(x, 3.5)) for row in rows)
        [shown, _] = asking.rows(Output(x, 321.5, 0), asking.conditions, 0)
        assert isinstance(shown, Predict) and shown.input is x and shown.time == 321.5


@pytest.mark.parametrize("cfg_scale", [1, 7])
def test_noise_is_asked_for_together_with_the_rows(cfg_scale: float) -> None:
    outputs, noise = tensors(), torch.randn(4, 2, 3)
    together = (Denoise(outputs["x"], 3.5, 0), Draw(Recorded([noise])))
    [rows], [[denoised, drawn]] = asked_and_answered([together], guidance(cfg_scale), outputs)
    assert rows == ["prompt", "noise"] if cfg_scale == 1 else ["negative", "prompt", "noise"]
    assert drawn is noise and denoised.shape == outputs["x"].shape


def test_only_rows_at_the_origin_are_shared() -> None:
    x = torch.randn(4, 2, 2)

    def rows(asking: Guidance, latents: torch.Tensor) -> tuple[Any, ...]:
        return asking.rows(Denoise(latents, 14.0, 0), asking.conditions, 0)

    first, later = rows(guidance(7, x), x), rows(guidance(7, x), x.clone())
    assert all(isinstance(row, Share) for row in first) and all(isinstance(row, Predict) for row in later)
    assert first[0].key == rows(guidance(3, x), x)[0].key
    assert first[0].key != first[1].key
    assert first[0].key != rows(guidance(7, x, parameterization_of(STABLE_DIFFUSION, True)), x)[0].key


def test_rows_at_the_origin_are_told_apart_by_sigmas_that_have_the_same_time() -> None:
    """Beyond the training noise levels a plugin's sampler may ask of one x at two sigmas."""
    x = torch.randn(4, 2, 2)
    asking = guidance(7, x)
    near, far = (asking.rows(Denoise(x, sigma, 0), asking.conditions, 0)[0] for sigma in (20.0, 40.0))
    assert EPS.time_at(20.0) == EPS.time_at(40.0) and isinstance(near, Share) and isinstance(far, Share)
    assert near.key != far.key


# guidance_rescale


@pytest.mark.parity
@pytest.mark.parametrize("amount", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("cfg_scale", [0.5, 2, 7.5])
@pytest.mark.parametrize("model", [EPS, V, FLOW], ids=["eps", "v", "flow"])
def test_rescales_the_networks_output_as_diffusers_does(
    model: Parameterization, cfg_scale: float, amount: float
) -> None:
    outputs, sigma = tensors(), 3.5
    x = outputs["x"]
    questions = [Denoise(x, sigma, 0), Output(x, 500.0, 1)]
    asking = guidance(cfg_scale, model=model, rescale=amount)
    _, [denoised, output] = asked_and_answered(questions, asking, outputs)
    combined = outputs["negative"] + cfg_scale * (outputs["prompt"] - outputs["negative"])
    theirs = rescale_noise_cfg(combined[None], outputs["prompt"][None], amount)[0]
    torch.testing.assert_close(output, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(denoised, model.denoised(x, theirs, sigma), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cfg_scale", [0, 1])
def test_there_is_nothing_to_rescale_where_there_is_one_row(cfg_scale: float) -> None:
    outputs = tensors()
    plain = asked_and_answered([Output(outputs["x"], 500.0, 0)], guidance(cfg_scale), outputs)
    rescaled = asked_and_answered([Output(outputs["x"], 500.0, 0)], guidance(cfg_scale, rescale=1.0), outputs)
    assert plain[0] == rescaled[0] and torch.equal(plain[1][0], rescaled[1][0])


# negative_guidance_minimum_sigma

BOTH, ALONE = ["negative", "prompt"], ["prompt"]


def test_below_the_minimum_every_second_evaluation_is_the_conditional_output_alone() -> None:
    outputs = tensors()
    x = outputs["x"]
    sigmas = [9.0, 8.0, 3.0, 2.0, 1.9, 1.5, 1.0]
    questions = [Denoise(x, sigma, step) for step, sigma in enumerate(sigmas)]
    rows, answers = asked_and_answered(questions, guidance(7, minimum_sigma=2.0), outputs)
    assert rows == [BOTH, BOTH, BOTH, BOTH, BOTH, ALONE, BOTH]
    torch.testing.assert_close(answers[5], x - 1.5 * outputs["prompt"])
    plain = asked_and_answered(questions, guidance(7), outputs)[1]
    assert all(torch.equal(answers[place], plain[place]) for place in (0, 1, 2, 3, 4, 6))


def test_evaluations_are_counted_and_not_steps_or_draws() -> None:
    outputs = tensors()
    x, noise = outputs["x"], Recorded([outputs["x"]] * 3)
    low = Denoise(x, 0.5, 4)
    questions = [low, Draw(noise), low, (low, Draw(noise)), (low,), low]
    rows, _ = asked_and_answered(questions, guidance(7, minimum_sigma=1.0), outputs)
    assert rows == [BOTH, ["noise"], ALONE, [*BOTH, "noise"], ALONE, BOTH]


@pytest.mark.parametrize("model", [EPS, FLOW], ids=["eps", "flow"])
def test_questions_for_the_output_have_the_sigma_of_their_time(model: Parameterization) -> None:
    outputs = tensors()
    times = [model.time_at(sigma) for sigma in (1.0, 2.1, 1.0, 1.9)]
    questions = [Output(outputs["x"], time, step) for step, time in enumerate(times)]
    asking = guidance(7, model=model, minimum_sigma=2.0, rescale=0.7)
    rows, answers = asked_and_answered(questions, asking, outputs)
    assert rows == [BOTH, BOTH, BOTH, ALONE] and torch.equal(answers[3], outputs["prompt"])


@pytest.mark.parametrize(("cfg_scale", "rows"), [(1, ["prompt"]), (0, ["negative"])])
def test_there_is_nothing_to_leave_out_where_there_is_one_row(cfg_scale: float, rows: list[str]) -> None:
    outputs = tensors()
    questions = [Denoise(outputs["x"], 0.5, step) for step in range(3)]
    assert asked_and_answered(questions, guidance(cfg_scale, minimum_sigma=9), outputs)[0] == [rows] * 3


# guidance_stop


def test_after_the_last_guided_evaluation_the_conditional_output_is_alone() -> None:
    outputs = tensors()
    x = outputs["x"]
    questions = [Denoise(x, 9.0 - step, step) for step in range(4)]
    rows, answers = asked_and_answered(questions, guidance(7, guided=2), outputs)
    assert rows == [BOTH, BOTH, ALONE, ALONE]
    torch.testing.assert_close(answers[3], x - 6.0 * outputs["prompt"])
    plain = asked_and_answered(questions, guidance(7), outputs)[1]
    assert torch.equal(answers[1], plain[1])


def test_it_goes_together_with_the_minimum_and_with_rescaling() -> None:
    outputs = tensors()
    questions = [Denoise(outputs["x"], 0.5, step) for step in range(5)]
    asking = guidance(7, guided=3, minimum_sigma=1.0, rescale=0.7)
    rows, answers = asked_and_answered(questions, asking, outputs)
    assert rows == [BOTH, ALONE, BOTH, ALONE, ALONE]
    assert torch.equal(answers[4], answers[1]) and not torch.equal(answers[2], answers[1])


@pytest.mark.parity
def test_evaluations_with_guidance_are_those_of_diffusers_guiders() -> None:
    """But where a fraction is whole and floating-point numbers fall short of it: 0.29 of 100 is 29."""
    for asked, percent in product((1, 2, 7, 20, 39, 100), range(0, 101)):
        guider = ClassifierFreeGuidance(guidance_scale=5.0, stop=percent / 100)
        theirs = 0
        for step in range(asked):
            guider.set_state(step, asked, torch.tensor(step))
            theirs += guider.num_conditions == 2
        ours = guided_of(asked, percent / 100)
        assert ours == percent * asked // 100
        assert ours == theirs or (percent * asked % 100 == 0 and ours == theirs + 1)


# with a real checkpoint


def sweep(samplers: tuple[str, ...], scales: tuple[float, ...], seeds: tuple[int, ...]) -> list[Settings]:
    return [settings(sampler, scale, seed) for sampler, scale, seed in product(samplers, scales, seeds)]


def settings(sampler: str, cfg_scale: float = 7.0, seed: int = 1, steps: int = 2, **others: Any) -> Settings:
    asked = {"model": "m", "prompt": "a ginger cat", "negative_prompt": "dog", "width": 64, "height": 64}
    asked |= {"sampler": sampler, "cfg_scale": cfg_scale, "seed": seed, "steps": steps, **others}
    return resolved(asked, BUILT_IN)


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_first_rows_are_computed_once_for_all_scales_samplers_and_schedules(
    seeds: tuple[int, ...], networks: Networks
) -> None:
    samplers = ("Euler a", "Euler", "LMS Karras", "DPM++ 2M", "Euler SGM Uniform", "LMS Beta")
    render(sweep(samplers, (3, 7.5, 20), seeds), runner := Counting(networks))
    second_rows = len(samplers) * 3 * len(seeds) * 2
    assert runner.rows("Predict") == 2 * len(seeds) + second_rows


@pytest.mark.parametrize(("scale", "rows"), [(1, 2), (0, 2), (5, 4)])
def test_scales_0_and_1_ask_the_network_half_as_often(scale: float, rows: int, networks: Networks) -> None:
    render(sweep(("Euler",), (scale,), (1,)), runner := Counting(networks))
    assert runner.rows("Predict") == rows


@pytest.mark.parametrize(("sampler", "evaluations"), [("Euler", 6), ("Heun", 11), ("DDIM", 7)])
def test_rows_left_out_are_not_computed(sampler: str, evaluations: int, networks: Networks) -> None:
    cell = settings(sampler, steps=6, negative_guidance_minimum_sigma=15.0)
    render([cell], runner := Counting(networks))
    assert runner.rows("Predict") == 2 * evaluations - evaluations // 2


@pytest.mark.parametrize("option", [{"negative_guidance_minimum_sigma": 15.0}, {"guidance_stop": 0.5}])
def test_a_scheduler_of_diffusers_is_guided_alike(option: dict[str, float], networks: Networks) -> None:
    cell = settings("diffusers:EulerDiscreteScheduler", steps=6, **option)
    render([cell], runner := Counting(networks))
    assert runner.rows("Predict") == 9


@pytest.mark.parity
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_pictures_are_those_of_diffusers(
    rescale: float, prediction_type: str, networks: Networks, pipeline: StableDiffusionPipeline
) -> None:
    """DDIM's own timesteps; the same network, whatever it was trained to predict."""
    cell = settings("DDIM", 6.0, steps=8, guidance_rescale=rescale)
    config = networks.scheduler_config | {"prediction_type": prediction_type}
    before = pipeline.scheduler
    pipeline.scheduler = DDIMScheduler.from_config(config, timestep_spacing="leading", steps_offset=1)
    theirs = pipeline(
        prompt=cell.prompt,
        negative_prompt=cell.negative_prompt,
        num_inference_steps=cell.steps,
        guidance_scale=cell.cfg_scale,
        guidance_rescale=rescale,
        generator=torch.Generator().manual_seed(cell.seed),
        width=cell.width,
        height=cell.height,
    ).images[0]
    pipeline.scheduler = before
    [ours] = render([cell], Counting(replace(networks, scheduler_config=config)))
    assert apart(ours, np.asarray(theirs)) <= LEVELS


@pytest.mark.parity
def test_pictures_of_a_flow_are_those_of_diffusers_euler(networks: Networks) -> None:
    """Through the whole engine, on the schedule that begins just short of pure noise."""
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
    flow = replace(networks, scheduler_config=config)
    ours, theirs = render(
        [
            settings("Euler", 4.0, steps=8),
            settings("diffusers:FlowMatchEulerDiscreteScheduler", 4.0, steps=8),
        ],
        Counting(flow),
    )
    assert apart(ours, theirs) <= LEVELS


def test_settings_of_guidance_reach_the_picture(networks: Networks) -> None:
    others: list[dict[str, Any]] = [
        {},
        {"guidance_rescale": 0.7},
        {"negative_guidance_minimum_sigma": 15.0},
        {"guidance_stop": 0.5},
        {"zero_terminal_snr": True},
    ]
    pictures = render([settings("Euler", steps=4, **other) for other in others], Counting(networks))
    assert len({picture.tobytes() for picture in pictures}) == len(others)
    as_it_is = render([settings("Euler", steps=4, zero_terminal_snr=False)], Counting(networks))
    assert np.array_equal(as_it_is[0], render([settings("Euler", steps=4)], Counting(networks))[0])


def test_sharing_changes_no_picture(networks: Networks) -> None:
    cells = sweep(("Euler a", "Heun"), (3, 9), (5,))
    together = render(cells, Counting(networks))
    alone = [render([cell], Counting(networks))[0] for cell in cells]
    assert max(map(apart, together, alone)) <= LEVELS


def test_sharing_changes_no_bit_where_the_batches_are_alike(networks: Networks) -> None:
    """With batches of one row, sharing is all that differs between a cell among others and the same alone."""
    cells = sweep(("Euler a", "Heun"), (3, 9), (5,))
    together = render(cells, Counting(networks), rows=1)
    for cell, picture in zip(cells, together, strict=True):
        assert np.array_equal(render([cell], Counting(networks), rows=1)[0], picture)
