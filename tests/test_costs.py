from dataclasses import asdict, replace
from itertools import product, repeat
from operator import attrgetter

import pytest
import torch

from farm.cell import Cell, Settings
from farm.cluster.tasks import cost, tasks_of
from farm.costs import (
    PER_BRANCH,
    evaluations,
    evaluations_at,
    first_pass,
    first_rows,
    guiding_strands,
    leaves_out,
    prompt_steps,
    rows,
    shallow_rows,
)
from farm.layout import Layout
from farm.plan import Plan
from farm.render.recipes import OPTIONS
from farm.render.samplers import SAMPLERS as SAMPLER_FUNCTIONS
from farm.render.schedules import sigmas_for
from farm.resolving import resolved
from farm.sampling import AUTOMATIC, BUILT_IN, SAMPLERS, SCHEDULES, Sampler, Samplers, Schedule
from farm.weights.checkpoint import Networks
from farm.weights.loading import load_checkpoint
from tests.render.oracles import Recorded, bent, drive, stable_diffusion
from tests.render.rendering import Counting, render

BASE = Settings("m", "a cat", "blurry", "Euler", 4, 5.0, 1, 64, 64, schedule="uniform")
CPU = torch.device("cpu")
takes_schedules = attrgetter("takes_schedules")


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 7.0])
def test_an_evaluation_has_the_rows_that_guidance_computes(scale: float) -> None:
    settings = replace(BASE, cfg_scale=scale)
    computed = {0.0: 1, 1.0: 1}.get(scale, 2)
    assert rows(settings) == evaluations(settings) * computed
    assert len(first_rows(settings)) == computed


@pytest.mark.parametrize("sigma_max", [None, 10.0])
def test_first_rows_are_equal_exactly_where_pictures_start_alike(sigma_max: float | None) -> None:
    """Also at 9 and 10 steps, where CompVis's own schedule begins at the same timestep."""
    starts: dict[tuple[object, ...], set[tuple[float, bool]]] = {}
    names: dict[tuple[float, bool, str, int], set[tuple[object, ...]]] = {}
    for row, schedule, steps, discard in product(SAMPLERS, SCHEDULES, (5, 9, 10, 20), (None, True, False)):
        given = {"schedule": schedule.name, "discard_next_to_last_sigma": discard, "sigma_max": sigma_max}
        wanted = resolved(asdict(BASE) | given | {"sampler": row.name, "steps": steps}, BUILT_IN)
        walked = sigmas_for(wanted, row, BUILT_IN.schedules[wanted.schedule], stable_diffusion())
        start = walked[0], row.starts_at_unit_variance
        starts.setdefault(first_rows(wanted)[0], set()).add(start)
        own = wanted.schedule if wanted.schedule in AT_WHOLE_TIMESTEPS else ""
        rounded = row.distilled_at if sigma_max else 0
        names.setdefault((*start, own, rounded), set()).add(first_rows(wanted)[0])
    assert [key for key, found in starts.items() if len(found) > 1] == []
    assert [key for key, found in names.items() if len(found) > 1] == []


AT_WHOLE_TIMESTEPS = ("simple", "ddim")
"""Schedules that now and then begin at a sigma of another schedule, which plans do not know."""


@pytest.mark.parametrize(
    ("name", "value"), [("sampler", "diffusers:EulerDiscreteScheduler"), ("s_churn", 5.0)]
)
def test_what_begins_on_its_own_shares_no_first_row(tiny_model, name: str, value: object) -> None:
    """Nor do its two rows each other's, where both texts are alike."""
    networks: Networks = load_checkpoint(tiny_model, CPU, torch.float32)
    alike = {"prompt": "", "negative_prompt": "", "steps": 2, "schedule": AUTOMATIC}
    cells = [
        Cell(seed, (), resolved(asdict(BASE) | alike | {"seed": seed, name: value}, BUILT_IN), key=str(seed))
        for seed in (1, 2)
    ]
    render([cell.settings for cell in cells], runner := Counting(networks))
    plan = Plan("p", (), Layout(), tuple(cells))
    assert runner.rows("Predict") == plan.rows() == plan.unshared_rows() == 8


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.0])
def test_plan_queue_and_engine_count_the_same_rows(tiny_model, scale: float) -> None:
    networks: Networks = load_checkpoint(tiny_model, CPU, torch.float32)
    for row in SAMPLERS:
        if row.chooses_steps:  # its evaluations are a guess
            continue
        asked = asdict(replace(BASE, sampler=row.name, steps=2, cfg_scale=scale, schedule=AUTOMATIC))
        settings = resolved(asked, BUILT_IN)
        cell = Cell(1, (), settings, key="k")
        render([settings], runner := Counting(networks))
        assert runner.rows("Predict") == rows(settings) == Plan("p", (), Layout(), (cell,)).rows()
        assert cost(cell) == runner.rows("Predict") * 64 * 64


@pytest.fixture(scope="module")
def networks(tiny_model) -> Networks:
    return load_checkpoint(tiny_model, CPU, torch.float32)


APPROXIMATIONS = [
    {"guidance_stop": 0.5},
    {"guidance_stop": 0.0},
    {"token_merging_ratio": 0.5},
    {"deepcache_interval": 2},
    {"deepcache_interval": 3, "deepcache_branch": 1},
    {"deepcache_interval": 3, "guidance_stop": 0.6, "token_merging_ratio": 0.25},
    {"deepcache_interval": 99, "guidance_stop": 0.3},
]


@pytest.mark.parametrize("approximation", APPROXIMATIONS, ids=str)
@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("[a cat:a hat:2]", marks=pytest.mark.slow),
        pytest.param("a cat AND a hat", marks=pytest.mark.slow),
        "a cat :0.5 AND a hat",
    ],
)
def test_with_approximations_they_count_alike_too(networks, prompt: str, approximation) -> None:
    """The first part of the third prompt has a row with guidance and none without it."""
    for sampler, scale in product(("Heun", "diffusers:DDIMScheduler"), (0.0, 6.0)):
        asked = asdict(replace(BASE, prompt=prompt, sampler=sampler, steps=5, cfg_scale=scale))
        settings = resolved(asked | {"negative_prompt": "[a bow:dog:3]"} | approximation, BUILT_IN)
        plan = Plan("p", (), Layout(), (cell := Cell(1, (), settings, key="k"),))
        render([settings], runner := Counting(networks))
        assert runner.rows("Predict") == rows(settings) == plan.rows()
        assert runner.shallow == plan.shallow_rows()
        assert runner.rows("EncodeText") == plan.text_encodings()
        spared = 1 - min(1.0, PER_BRANCH * (1 + settings.deepcache_branch))
        assert cost(cell) == pytest.approx((rows(settings) - spared * runner.shallow) * 64 * 64)


@pytest.mark.parametrize("sigma", [1.0, 15.0])
@pytest.mark.parametrize("deepcache_interval", [1, 3])
@pytest.mark.parametrize(
    ("prompt", "scale"), [("a cat", 6.0), ("a cat AND a hat", 6.0), ("a cat :0.5 AND a hat :0.5", 1.0)]
)
def test_where_low_noise_leaves_rows_out_there_are_never_more_than_planned(
    networks, prompt: str, scale: float, deepcache_interval: int, sigma: float
) -> None:
    asked = {"prompt": prompt, "steps": 5, "cfg_scale": scale, "deepcache_interval": deepcache_interval}
    settings = resolved(asdict(BASE) | asked | {"negative_guidance_minimum_sigma": sigma}, BUILT_IN)
    render([settings], runner := Counting(networks))
    found, planned = runner.rows("Predict"), rows(settings)
    assert found < planned if leaves_out(settings) else found == planned
    full = planned - shallow_rows(settings)
    assert found - runner.shallow <= full and leaves_out(settings) == (scale != 1)


@pytest.mark.parametrize("discard", [None, True, False])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda row: row.name)
@pytest.mark.parametrize(
    "sampler", [row for row in SAMPLERS if row.takes_schedules], ids=lambda row: row.name
)
def test_a_sampler_asks_as_often_as_planned_on_every_schedule(
    sampler: Sampler, schedule: Schedule, discard: bool | None
) -> None:
    model = stable_diffusion()
    for steps in (1, 8, 20, 27):
        asked = {"sampler": sampler.name, "schedule": schedule.name, "steps": steps}
        settings = resolved(asdict(BASE) | asked | {"discard_next_to_last_sigma": discard}, BUILT_IN)
        sigmas = sigmas_for(settings, sampler, schedule, model)
        noise = Recorded(repeat(torch.zeros(1)))
        options = {name: OPTIONS[name](settings, model) for name in sampler.options}
        sampling = SAMPLER_FUNCTIONS[str(sampler.algorithm)](
            torch.ones(1) * sigmas[0], sigmas, noise, **options, **sampler.fixed
        )
        assert len(drive(sampling, bent)[1]) == evaluations(settings), steps


@pytest.mark.slow
def test_sharing_is_computed_as_planned(tiny_model) -> None:
    settings = asdict(BASE) | {"steps": 3}
    wanted = [
        resolved(settings | {"sampler": sampler, "cfg_scale": scale} | change, BUILT_IN)
        for sampler, scale, change in product(
            ("Euler", "Heun", "LMS", "DDIM", "LCM", "diffusers:DDIMScheduler"),
            (0.0, 1.0, 5.0),
            (
                {"schedule": AUTOMATIC},
                {"schedule": "karras"},
                {"sigma_max": 9.0},
                {"s_churn": 3.0},
                {"variation_seed": 7, "variation_strength": 0.3},
                {"rng": "nv"},
                *APPROXIMATIONS[:5],
            ),
        )
    ]
    wanted = list(dict.fromkeys(wanted))
    cells = tuple(Cell(number, (), settings) for number, settings in enumerate(wanted))
    render(wanted, runner := Counting(load_checkpoint(tiny_model, CPU, torch.float32)))
    assert runner.rows("Predict") == Plan("p", (), Layout(), cells).rows()


@pytest.mark.parametrize("name", [row.name for row in SAMPLERS])
def test_more_steps_never_cost_less(name: str) -> None:
    """Nor does any number that a job can write fail, also where one step more is scheduled and dropped."""
    row = BUILT_IN[name]
    for schedule, discard in product(SCHEDULES, (False, True)):
        counts = [evaluations_at(steps, row, schedule, discard) for steps in (*range(1, 60), 333, 999, 1000)]
        assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        ({"sampler": "Heun"}, True),
        ({"cfg_scale": 1.0}, True),
        ({"steps": 9}, True),
        ({"seed": 2}, False),
        ({"width": 128}, False),
        ({"height": 128}, False),
        ({"prompt": "a dog"}, False),
        ({"negative_prompt": ""}, False),
        ({"clip_skip": 2}, False),
        ({"precision": "fp16"}, False),
        ({"model": "n"}, False),
        ({"guidance_stop": 0.5}, True),
        ({"token_merging_ratio": 0.5}, False),
        ({"deepcache_interval": 2}, False),
    ],
)
def test_what_shares_a_first_pass_is_leased_together(change, shares: bool) -> None:
    changed = replace(BASE, **change)
    assert (first_pass(changed) == first_pass(BASE)) == shares
    one, other = tasks_of([Cell(1, (), BASE, key="a"), Cell(2, (), changed, key="b")])
    assert (one.group == other.group) == shares


TWICE = {"Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "Restart"}
"""A1111's `second_order`, whose prompts are laid over twice as many steps."""


@pytest.mark.parametrize("row", SAMPLERS, ids=lambda row: row.name)
def test_prompts_are_laid_over_the_steps_that_a1111_counts(row: Sampler) -> None:
    for steps in (1, 7, 20):
        wanted = replace(BASE, sampler=row.name, steps=steps)
        assert prompt_steps(wanted) == steps * (2 if row.name in TWICE else 1)
        assert (
            prompt_steps(wanted) >= evaluations(wanted)
            or row.chooses_steps
            or row.name in ("PLMS", "Restart")
        )


@pytest.mark.parametrize(
    ("prompts", "more"),
    [
        (["a cat AND a hat :0.5", "a cat", "a hat"], 0),
        (["a cat AND a cat :0.5"], 0),
        (["a  cat", "A cat", "a cat BREAK ", "a cat"], 0),
        ([f"a (cat:{weight / 10})" for weight in range(5, 15)], 0),
        (["a (cat:1.2)", "a (cat:1.4)", "a cat"], 0),
        (["a cat", "a cat[ BREAK a hat:2]", "a cat[ BREAK a hat:4]"], 1),  # the empty chunk
        (["a cat", "a cat AND a hat BREAK a bow"], 1),  # a text of two chunks
        (["[a cat:a hat:2]", "[a cat:a bow:2]", "[a cat|a hat]", "a cat AND a hat :0"], 0),
        (["a 12", "a 1(2:1.1)"], 0),  # each digit is a token
        (["a cat's", "a (cat':1.1)s", "a straße", "a strasse"], 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("emphasis", ["original", "ignore"])
@pytest.mark.slow
def test_prompts_are_shared_as_planned(tiny_model, emphasis: str, prompts: list[str], more: int) -> None:
    """Plans count texts: how many chunks they are, only the tokenizer knows."""
    asked = [asdict(replace(BASE, prompt=prompt, emphasis=emphasis)) for prompt in prompts]
    cells = [Cell(number, (), resolved(one, BUILT_IN)) for number, one in enumerate(asked)]
    plan = Plan("p", (), Layout(), tuple(cells))
    wanted = list(dict.fromkeys(cell.settings for cell in cells))
    render(wanted, runner := Counting(load_checkpoint(tiny_model, CPU, torch.float32)))
    assert runner.rows("Predict") == plan.rows()
    assert runner.rows("EncodeText") == plan.text_encodings() + more


def test_texts_are_left_out_only_where_it_is_sure_how_often_the_model_is_asked() -> None:
    own = Schedule(
        name="own", title="Own", function=lambda *_, **__: [10.0, 5.0, 2.0, 1.0, 0.5], source="a plugin"
    )
    samplers = Samplers(SAMPLERS, (*SCHEDULES, own))
    for schedule, sampler, texts in [
        ("uniform", "Euler", ("cat",)),
        ("own", "Euler", ("cat", "hat")),
        ("uniform", "DPM adaptive", ("cat", "hat")),
        ("automatic", "diffusers:EulerDiscreteScheduler", ("cat", "hat")),
    ]:
        wanted = replace(BASE, prompt="[cat:hat:3]", sampler=sampler, schedule=schedule)
        *_, strand = guiding_strands(wanted, samplers)
        assert strand.said.texts == texts, sampler
