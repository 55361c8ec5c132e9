from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farm.cell import DEFAULTS, Settings, content_key
from farm.costs import evaluations, guided_of
from farm.counting import steps_from_picture, steps_of_scheduler
from farm.resolving import completed, contradictions, resolved
from farm.sampling import BUILT_IN
from farm.weights.loading import load_checkpoint
from tests.render.rendering import Counting, render

BASE = {
    "model": "m", "prompt": "a cat", "negative_prompt": "dog", "steps": 3, "cfg_scale": 4.0, "seed": 5,
    "width": 64, "height": 64,
}  # fmt: skip


def decided(**asked) -> Settings:
    return resolved(BASE | asked, BUILT_IN)


@pytest.mark.parametrize(
    ("asked", "sampler", "schedule", "eta"),
    [
        ({"sampler": "DPM++ 2M"}, "DPM++ 2M", "uniform", None),
        ({"sampler": "DPM++ 2M Karras"}, "DPM++ 2M", "karras", None),
        ({"sampler": "k_dpmpp_2m_ka"}, "DPM++ 2M", "karras", None),
        ({"sampler": "dpm++ 2m", "schedule": "karras"}, "DPM++ 2M", "karras", None),
        ({"sampler": "DPM++ 2M", "schedule": "normal"}, "DPM++ 2M", "uniform", None),
        ({"sampler": "Euler a"}, "Euler a", "uniform", 1.0),
        ({"sampler": "Euler a", "eta": 0.5}, "Euler a", "uniform", 0.5),
        ({"sampler": "DDIM"}, "DDIM", "ddim", 0.0),
        ({"sampler": "DPM fast", "schedule": "beta"}, "DPM fast", "uniform", 1.0),
        ({"sampler": "diffusers:UniPCMultistep", "schedule": "beta"}, "diffusers:UniPCMultistepScheduler",
         "automatic", None),
    ],
)  # fmt: skip
def test_a_sampler_and_its_schedule_are_decided(asked, sampler, schedule, eta):
    settings = decided(**asked)
    assert (settings.sampler, settings.schedule, settings.eta) == (sampler, schedule, eta)


CHURN = {"s_tmin": 0.5, "s_tmax": 3.0, "s_noise": 1.05}
IDLE = [
    ("Euler", {"eta": 0.5, "rho": 5.0, **CHURN}),
    ("Euler a", {"s_churn": 9.0, "s_tmin": 0.5, "s_tmax": 3.0}),
    ("Euler a", {"eta": 0.0, "s_noise": 1.05}),
    ("Euler a", {"eta": 0.0, "eta_noise_seed_delta": 31337}),
    ("Heun", {"eta_noise_seed_delta": 31337}),
    ("DPM++ 2M Karras", {"eta": 0.3, "s_noise": 1.05, "eta_noise_seed_delta": 7, "s_churn": 4.0}),
    ("DPM++ 2M SDE", {"eta_noise_seed_delta": 7}),
    ("DPM++ SDE", {"eta": 0.0, "s_noise": 1.05}),
    ("DPM2 a", {"eta": 0.0, "s_noise": 1.05, "eta_noise_seed_delta": 7}),
    ("DDIM", {"eta_noise_seed_delta": 7, "sigma_min": 0.2, "sigma_max": 9.0, "rho": 3.0}),
    ("UniPC", {"eta": 1.0, "s_noise": 0.9}),
    ("DPM adaptive", {"steps": 5, "schedule": "karras", "rho": 3.0}),
    ("DPM fast", {"schedule": "karras", "rho": 3.0}),
    ("Euler", {"cfg_scale": 1.0, "guidance_rescale": 0.7}),
    ("Euler", {"cfg_scale": 1.0, "negative_guidance_minimum_sigma": 9.0}),
    ("Euler", {"cfg_scale": 1.0, "guidance_stop": 0.5}),
    ("Euler", {"cfg_scale": 0.0, "guidance_stop": 0.5}),
    ("DPM adaptive", {"guidance_stop": 0.5}),
    ("Euler", {"deepcache_branch": 1}),
    ("Euler", {"variation_seed": 12}),
    ("Euler", {"seed_resize_from_width": 64, "seed_resize_from_height": 64}),
    ("DPM2", {"discard_next_to_last_sigma": True}),
    ("DPM fast", {"discard_next_to_last_sigma": True}),
    ("Restart", {"s_noise": 1.1, "eta_noise_seed_delta": 7}),
    ("diffusers:EulerAncestralDiscreteScheduler", {"sigma_min": 0.5, "rho": 3.0, "s_churn": 3.0, "eta": 0.5}),
]


@pytest.fixture(scope="module")
def networks(tiny_model):
    return load_checkpoint(tiny_model, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("sampler", "idle"), IDLE, ids=lambda one: one if isinstance(one, str) else "-".join(one)
)
@pytest.mark.slow
def test_what_is_ignored_changes_no_pixel(networks, sampler, idle):
    """The settings as asked, handed to the renderer, give the very picture of the resolved ones."""
    needed = {"cfg_scale": idle.get("cfg_scale", 4.0)} | ({"eta": 0.0} if idle.get("eta") == 0 else {})
    wanted = decided(sampler=sampler, **needed)
    assert decided(sampler=sampler, **idle) == wanted
    forced = replace(wanted, **{name: value for name, value in idle.items() if name != "schedule"})
    (one,), (other,) = (render([settings], Counting(networks), rows=2) for settings in (wanted, forced))
    assert (one == other).all()


@pytest.mark.parametrize(
    ("sampler", "telling"),
    [
        ("Euler a", {"eta": 0.5}),
        ("Euler a", {"eta_noise_seed_delta": 3}),
        ("Heun", {"s_churn": 2.0}),
        ("DPM++ 2M", {"sigma_min": 0.2}),
        ("DPM++ 2M Karras", {"rho": 5.0}),
        ("DDIM", {"eta": 1.0}),
        ("DPM++ 2M", {"discard_next_to_last_sigma": True}),
        ("DPM2", {"discard_next_to_last_sigma": False}),
        ("DPM fast", {"sigma_min": 0.2}),
        ("LCM", {"eta_noise_seed_delta": 3}),
        ("Euler", {"zero_terminal_snr": True}),
        ("Euler", {"rng": "nv"}),
        ("DPM adaptive", {"seed": 6}),
        ("Euler", {"guidance_stop": 2 / 3}),
        ("Euler", {"guidance_stop": 2 / 3, "negative_guidance_minimum_sigma": 9.0}),
        ("diffusers:DDIMScheduler", {"deepcache_interval": 9}),  # nobody knows how often it asks
        ("Euler", {"token_merging_ratio": 0.1}),
        ("DPM adaptive", {"deepcache_interval": 2, "deepcache_branch": 1}),
    ],
)
def test_what_matters_is_kept(sampler, telling):
    settings = decided(sampler=sampler, **telling)
    assert {name: getattr(settings, name) for name in telling} == telling
    assert settings != decided(sampler=sampler)


@pytest.mark.parametrize("asked", [{"guidance_stop": 0.0}, {"guidance_stop": 0.3, "guidance_rescale": 0.7}])
def test_guidance_that_stops_before_the_first_evaluation_is_none(networks, asked):
    """And so is one picture for all scales."""
    wanted = decided(sampler="Euler", cfg_scale=1.0)
    assert {decided(sampler="Euler", cfg_scale=scale, **asked) for scale in (1.0, 3.0, 9.0)} == {wanted}
    forced = replace(wanted, cfg_scale=9.0, **asked)
    (one,), (other,) = (render([settings], Counting(networks), rows=2) for settings in (wanted, forced))
    assert (one == other).all()
    parts = {"sampler": "Euler", "prompt": "a cat AND a hat", **asked}
    assert decided(**parts, cfg_scale=3.0) != decided(**parts, cfg_scale=1.0)


STOPS = st.floats(0, 1) | st.integers(0, 100).map(lambda percent: percent / 100)


@given(asked=st.integers(1, 4000), stop=STOPS)
def test_a_stop_is_where_the_last_guided_evaluation_ends(asked, stop):
    settings = decided(sampler="Euler", steps=min(asked, 1000), guidance_stop=stop)
    assert guided_of(asked, guided_of(asked, stop) / asked) == guided_of(asked, stop)
    if guided := guided_of(settings.steps, stop):
        assert settings.guidance_stop == guided / settings.steps
        assert guided_of(evaluations(settings), settings.guidance_stop) == guided
        assert (
            decided(sampler="Euler", steps=settings.steps, guidance_stop=settings.guidance_stop) == settings
        )


ALIKE = [
    ("Euler", "guidance_stop", (0.34, 0.5, 0.6)),
    ("Heun", "guidance_stop", (0.8, 0.9)),
    ("diffusers:EulerDiscreteScheduler", "guidance_stop", (0.4, 0.65)),
    ("Euler", "deepcache_interval", (3, 4, 100)),
    ("Heun", "deepcache_interval", (5, 7)),
]


@pytest.mark.parametrize(("sampler", "name", "values"), ALIKE, ids=str)
def test_approximations_that_come_to_the_same_are_one_picture(networks, sampler, name, values):
    """At three steps; as asked, they give the very picture of the one that stands for them."""
    [wanted] = {decided(sampler=sampler, **{name: value}) for value in values}
    assert wanted != decided(sampler=sampler)
    forced = [replace(wanted, **{name: value}) for value in values]
    one, *others = (render([settings], Counting(networks), rows=2)[0] for settings in (wanted, *forced))
    assert all((one == other).all() for other in others)


@given(steps=st.integers(1, 1000), strength=STOPS)
def test_a_strength_is_the_shortest_number_that_leaves_as_many_steps(steps, strength):
    for sampler, made in (("Euler", steps_from_picture), ("diffusers:DDIMScheduler", steps_of_scheduler)):
        asked = {"sampler": sampler, "steps": steps, "init_image": "0"}
        found = decided(**asked, denoising_strength=strength).denoising_strength
        assert made(steps, found) == made(steps, strength) and len(str(found)) <= 6
        assert (found == 0.75) == (made(steps, strength) == made(steps, 0.75))
        assert decided(**asked, denoising_strength=found).denoising_strength == found


def test_strengths_that_come_to_the_same_steps_are_one_picture():
    def found(sampler, steps, *strengths):
        asked = {"sampler": sampler, "steps": steps, "init_image": "0"}
        return [decided(**asked, denoising_strength=one).denoising_strength for one in strengths]

    assert found("Euler", 20, 0, 0.04, 0.05, 0.5, 0.53, 0.75, 0.95, 1) == [0, 0, 0.05, 0.5, 0.5, 0.75, 1, 1]
    assert found("Euler", 10, 0.7, 0.75, 0.79, 0.8) == [0.75, 0.75, 0.75, 0.8]
    assert found("DPM adaptive", 15, 0.67, 0.7, 0.74, 0.82) == [0.7, 0.7, 0.75, 0.8]
    assert found("diffusers:DDIMScheduler", 20, 0.5, 0.53, 0.95, 1) == [0.5, 0.5, 0.95, 1]


@pytest.mark.parametrize("where", [{"steps": 1}, {"guidance_stop": 0.4}])
def test_where_one_evaluation_is_guided_none_is_left_out_at_low_noise(networks, where):
    wanted = decided(sampler="Euler", **where)
    assert decided(sampler="Euler", negative_guidance_minimum_sigma=15.0, **where) == wanted
    forced = replace(wanted, negative_guidance_minimum_sigma=15.0)
    (one,), (other,) = (render([settings], Counting(networks), rows=2) for settings in (wanted, forced))
    assert (one == other).all()


def test_one_evaluation_has_no_features_to_use_again(networks):
    wanted = decided(sampler="Euler", steps=1)
    deep = {"deepcache_interval": 2, "deepcache_branch": 1}
    assert decided(sampler="Euler", steps=1, **deep) == wanted
    (one,), (other,) = (
        render([settings], Counting(networks), rows=2) for settings in (wanted, replace(wanted, **deep))
    )
    assert (one == other).all()
    kept = decided(sampler="Heun", steps=2, **deep)
    assert (kept.deepcache_interval, kept.deepcache_branch) == (2, 1)


@pytest.mark.slow
def test_restart_spaces_its_sigmas_itself_from_20_steps_on(networks):
    schedules = [name for name, row in BUILT_IN.schedules.items() if row.ends_at_sigma_min]
    wanted = decided(sampler="Restart", steps=20)
    for schedule in schedules:
        assert decided(sampler="Restart", steps=20, schedule=schedule, rho=3.0) == wanted
        named = BUILT_IN.first_name(BUILT_IN.schedules[schedule])
        assert decided(sampler="Restart", steps=19, schedule=schedule).schedule == named
    forced = [replace(wanted, schedule=schedule, rho=3.0) for schedule in schedules]
    one, *others = render([wanted, *forced], Counting(networks), rows=2)
    assert all((one == other).all() for other in others)


@pytest.mark.parametrize(
    "telling",
    [
        {"s_noise": 1.1},
        {"schedule": "simple"},
        {"sigma_min": 0.1},
        {"schedule": "ddim"},
        {"schedule": "beta", "sigma_max": 9.0},
        {"schedule": "uniform", "discard_next_to_last_sigma": True},
    ],
    ids=str,
)
def test_restart_keeps_what_matters_from_20_steps_on(telling):
    settings = decided(sampler="Restart", steps=20, **telling)
    assert {name: getattr(settings, name) for name in telling} == telling


def test_s_churn_makes_its_companions_matter():
    churned = decided(sampler="Euler", s_churn=4.0, eta_noise_seed_delta=3, **CHURN)
    assert (churned.s_tmin, churned.s_tmax, churned.s_noise, churned.eta_noise_seed_delta) == (
        0.5,
        3.0,
        1.05,
        3,
    )


def test_every_sampler_resolves_to_itself():
    for row in BUILT_IN.samplers:
        for schedule in ("automatic", *BUILT_IN.schedules):
            settings = decided(sampler=row.name, schedule=schedule)
            assert resolved(asdict(settings), BUILT_IN) == settings


@pytest.mark.parametrize("evaluations", [1, 2, 7, 20, 40, 999, 10_000])
def test_evaluations_become_the_most_steps_that_they_allow(evaluations):
    for row in BUILT_IN.samplers:
        asked = completed({**BASE, "sampler": row.name, "evaluations": evaluations}, BUILT_IN)
        steps = asked["steps"]
        if row.chooses_steps:
            assert steps == BASE["steps"] and not list(contradictions(asked, BUILT_IN))
            continue

        def cost(count, name=row.name):
            return completed({**BASE, "sampler": name, "steps": count}, BUILT_IN)["evaluations"]

        assert steps == 0 or cost(steps) <= evaluations
        assert steps == 1000 or cost(steps + 1) > evaluations
        assert bool(list(contradictions(asked, BUILT_IN))) == (steps == 0)


def test_keys_count_what_is_not_as_usual():
    plain = decided(sampler="Euler")
    key = content_key(plain, (), "h")
    assert key == content_key(
        replace(plain, **{name: DEFAULTS[name] for name in ("rng", "s_churn")}), (), "h"
    )
    assert key != content_key(replace(plain, rng="nv"), (), "h")
    assert key != content_key(replace(plain, schedule="karras"), (), "h")


@pytest.mark.parametrize(
    ("asked", "idle"),
    [
        ({"prompt": "a cat", "emphasis": "ignore"}, {"emphasis"}),
        ({"prompt": "a (cat:1.2)", "emphasis": "ignore"}, set()),
        ({"prompt": "a [cat:(hat:1.2):0.5]", "emphasis": "ignore"}, set()),
        ({"negative_prompt": "[hat]", "emphasis": "comfyui"}, set()),
        ({"negative_prompt": "[hat]", "emphasis": "comfyui", "cfg_scale": 1.0}, {"emphasis"}),
        ({"cfg_scale": 1.0, "guidance_rescale": 0.5}, {"guidance_rescale"}),
        ({"prompt": "a AND b", "cfg_scale": 1.0, "guidance_rescale": 0.5}, set()),
        ({"sampler": "DPM adaptive", "steps": 7}, {"steps"}),
        ({"sampler": "DPM adaptive", "steps": 7, "prompt": "[a:b:15]"}, set()),
        ({"sampler": "DPM adaptive", "steps": 7, "negative_prompt": "[a|b]"}, set()),
    ],
)
def test_what_prompts_say_decides_what_matters(asked, idle):
    wanted = {"model": "m", "prompt": "a cat"} | asked
    settings = resolved(wanted, BUILT_IN)
    changed = {name for name, value in asked.items() if getattr(settings, name) != value}
    assert changed == idle
