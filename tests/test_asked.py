"""What jobs may say of samplers, schedules and noise, and what is said about it."""

import re

import pytest

from farm.errors import BadInput
from farm.job import Vocabulary, load_job
from farm.plan import compile_job
from farm.sampling import BUILT_IN
from farm.settings import SETTINGS

VOCABULARY = Vocabulary(models={"cats": ()}, plugins={})
HEAD = "model: cats\nprompt: a cat\n"


@pytest.fixture
def compiled(tmp_path):
    def compiled(text, *options):
        path = tmp_path / "job.yaml"
        path.write_text(HEAD + text, encoding="utf-8")
        return compile_job(load_job(path, VOCABULARY, options))

    return compiled


def by_number(plan):
    return [cell.settings for cell in sorted(plan.cells, key=lambda cell: cell.number)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampler: Eulr", ":3: sampler: 'Eulr' is not known; did you mean 'Euler'? (farm samplers"),
        ("sampler: DPM++ 2M Karas", ":3: sampler: 'DPM++ 2M Karas' is not known; did you mean"),
        ("sweep: {sampler: [Euler, 'diffusers:UniPCx']}", ":3: sampler: diffusers has no scheduler 'UniPCx"),
        ("sampler: diffusers:DDIM(etta=1)", ":3: sampler: DDIMScheduler has no option 'etta'"),
        ("sampler: |\n  diffusers:DDIM\n  Heun\n",
         r":3: sampler: 'diffusers:DDIM\nHeun\n' goes over several lines; names stand in one"),
        ("sampler: DPMSolverMultistepScheduler",
         ":3: sampler: 'DPMSolverMultistepScheduler' is not known; did you mean "
         "'diffusers:DPMSolverMultistepScheduler'? (farm samplers --diffusers lists them)"),
        ("sampler: diffusers.EulerDiscrete(use_beta_sigmas=true)",
         "did you mean 'diffusers:EulerDiscreteScheduler(use_beta_sigmas=true)'?"),
        ("sampler: diffusers", "'diffusers' is not known; write diffusers:ClassName (farm samplers"),
        ("sampler: diffusers:Foo", "diffusers has no scheduler 'Foo' (farm samplers --diffusers lists them)"),
        ("sampler: DPM fast Karras", "'DPM fast Karras' is not known; DPM fast takes no schedule"),
        *[(f"sampler: {name}", f"sampler: '{name}' is not known; this one of A1111 is not here yet")
          for name in ("Align Your Steps", "KL Optimal", "Polyexponential", "Turbo", "DDIM CFG++",
                       "Euler CFG++", "DPM++ 2M Align Your Steps", "Euler Polyexponential", "Euler a Turbo")],
        *[(f"schedule: {name}", f"schedule: '{name}' is not known; this one of A1111 is not here yet")
          for name in ("polyexponential", "align_your_steps", "KL Optimal")],
        ("schedule: karas", ":3: schedule: 'karas' is not known; did you mean 'karras'?"),
        ("steps: 0", ":3: steps: 0 is not allowed; a whole number from 1 to 1000"),
        ("evaluations: 0", ":3: evaluations: 0 is not allowed; a whole number from 1 to 10000"),
        ("eta: 2", ":3: eta: 2 is not allowed; a number from 0 to 1, or automatic"),
        ("sigma_min: 0", ":3: sigma_min: 0 is not allowed; a number above 0, up to 1000, or"),
        ("s_tmax: high", ":3: s_tmax: 'high' is not a number or a range; a number from 0 to"),
        ("zero_terminal_snr: maybe", ":3: zero_terminal_snr: 'maybe' is not allowed; automatic, true"),
        ("seed_resize_from_width: 9", ":3: seed_resize_from_width: 9 is not allowed; a multiple of 8"),
        ("rng: xyz", ":3: rng: 'xyz' is not known (cpu or nv)"),
        ("sigma_min: 3\nsigma_max: 3", ":3: sigma_min: 3 is not allowed; less than sigma_max is, which is"),
        ("s_tmin: 4\ns_tmax: 3", ":3: s_tmin: 4 is not allowed; at most s_tmax is, which is"),
        ("seed_resize_from_width: 64", ":3: seed_resize_from_width: 64 needs seed_resize_from_height"),
        ("seed_resize_from_height: 64", ":3: seed_resize_from_height: 64 needs seed_resize_from_width"),
        ("sampler: LMS Karras\nschedule: beta", ":4: schedule: beta contradicts 'LMS Karras', which has"),
        ("steps: 3\nevaluations: 9", ":4: evaluations: stands in place of steps, which are"),
        ("evaluations: 9\nsweep: {zip: {steps: [3, 4], seed: [1, 2]}}", ":3: evaluations: stands in place"),
        ("evaluations: 1\nsampler: PLMS", ":3: evaluations: 1 is not enough for PLMS; one step of it takes"),
    ],
)  # fmt: skip
def test_mistakes_are_told_once_with_their_place(compiled, text, message):
    with pytest.raises(BadInput) as caught:
        compiled(text)
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)


def test_a_contradiction_is_told_once_for_all_its_combinations(compiled):
    with pytest.raises(BadInput) as caught:
        compiled("sweep:\n  seed: 1-50\n  schedule: [karras, beta]\n  sampler: [LMS Karras, Euler]\n")
    [problem] = caught.value.problems
    assert problem.where.endswith("job.yaml:5")


def test_many_alike_are_counted(compiled):
    with pytest.raises(BadInput) as caught:
        compiled("sigma_max: 1\nsweep:\n  sigma_min: 2-40\n")
    assert len(caught.value.problems) == 11
    assert "sigma_min: and 29 more like these" in str(caught.value)


def test_a_contradiction_can_be_skipped(compiled):
    sweep = "sweep: {schedule: [karras, beta], sampler: [LMS Karras, Euler]}\n"
    plan = compiled(sweep + "skip: [{sampler: LMS Karras, schedule: beta}]")
    assert [(one.sampler, one.schedule) for one in by_number(plan)] == [
        ("LMS", "karras"), ("Euler", "karras"), ("Euler", "beta"),
    ]  # fmt: skip


def test_all_samplers_and_all_schedules(compiled):
    plan = compiled("sweep: {sampler: all, schedule: all}")
    assert len(plan.axes[0].values) == len(BUILT_IN.samplers)
    assert [value.title for value in plan.axes[1].values] == list(BUILT_IN.schedules)
    names = {(one.sampler, one.schedule) for one in by_number(plan)}
    assert {("Euler", "beta"), ("DDIM", "karras")} <= names


@pytest.mark.parametrize(
    ("written", "titles"),
    [
        ("Euler, diffusers:DDIM(eta=0, steps_offset=1), Heun", 3),
        ("[Euler, 'diffusers:DDIM(steps_offset=1, timestep_spacing=trailing)']", 2),
        ("diffusers:DDIM(steps_offset=1, timestep_spacing=trailing)", 1),
    ],
)
def test_commas_in_parentheses_belong_to_the_name(compiled, written, titles):
    written = written.replace("eta=0, ", "")
    plan = compiled(f"sweep:\n  sampler: {written}\n")
    assert len(plan.axes[0].values) == titles
    assert any(one.sampler.startswith("diffusers:DDIMScheduler(steps_offset=1") for one in by_number(plan))


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("sigma_min", "auto", None),
        ("s_tmax", "no limit", None),
        ("discard_next_to_last_sigma", "true", True),
        ("discard_next_to_last_sigma", "off", False),
        ("zero_terminal_snr", "automatic", None),
        ("schedule", "SGM Uniform", "sgm_uniform"),
        ("seed_resize_from_width", "0", 0),
        ("rng", "NV", "nv"),
        ("eta", ".25", 0.25),
    ],
)
def test_values_are_read(tmp_path, name, written, value):
    path = tmp_path / "job.yaml"
    path.write_text(f"{HEAD}{name}: {written}\n", encoding="utf-8")
    job = load_job(path, VOCABULARY)
    assert job.base[name] == value and type(job.base[name]) is type(value)
    path.write_text(HEAD, encoding="utf-8")
    again = load_job(path, VOCABULARY, [f"{name}={written}"])
    assert again.base[name] == value
    path.write_text(again.job_yaml, encoding="utf-8")
    assert load_job(path, VOCABULARY).base == again.base


def test_a_random_variation_seed_is_drawn_once_and_written_down(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(HEAD + "variation_seed: random\nvariation_strength: 0.2\n", encoding="utf-8")
    job = load_job(path, VOCABULARY)
    assert [job.base["variation_seed"]] == list(job.drawn)
    path.write_text(job.job_yaml, encoding="utf-8")
    assert load_job(path, VOCABULARY).base == job.base


def test_evaluations_can_be_swept_zipped_and_titled(compiled):
    plan = compiled("sweep: {evaluations: [10, 20], sampler: [Euler, Heun, DPM adaptive]}")
    assert [one.steps for one in by_number(plan)] == [10, 5, 20, 20, 10, 20]
    assert len({one for one in by_number(plan) if one.sampler == "DPM adaptive"}) == 1
    assert sorted({cell.evaluations for cell in plan.cells if cell.settings.sampler == "Heun"}) == [9, 19]
    zipped = compiled("sweep: {zip: {evaluations: [10, 20], sampler: [Euler, Heun]}}")
    assert [one.steps for one in by_number(zipped)] == [10, 10]
    titled = compiled("sweep: {effort: [{title: low, evaluations: 4}, {title: high, evaluations: 9}]}")
    assert [one.steps for one in by_number(titled)] == [4, 9]


@pytest.mark.parametrize(
    ("text", "option", "steps"),
    [
        ("steps: 7", "evaluations=9", [5]),
        ("evaluations: 7", "steps=9", [9]),
        ("sweep: {steps: [7, 8]}\nsheet: {pages: [steps]}", "evaluations=9,19", [5, 10]),
        ("sweep: {evaluations: [7, 8]}\nsheet: {rows: evaluations}", "steps=4", [4]),
        ("sweep: {steps: [7, 8]}\nsheet: {rows: steps}", "evaluations=9", [5]),
    ],
)
def test_options_put_one_in_place_of_the_other(compiled, text, option, steps):
    plan = compiled(f"sampler: Heun\n{text}", option)
    assert [one.steps for one in by_number(plan)] == steps


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("{steps: '> 5'}", [("Heun", 5)]),
        ("{evaluations: 10}", []),
        ("{sampler: Heun}", [("Euler", 10)]),
    ],
)
def test_rules_see_steps_and_evaluations(compiled, rule, left):
    text = f"evaluations: 10\nsweep: {{sampler: [Euler, Heun]}}\nskip: [{rule}]"
    if not left:
        with pytest.raises(BadInput, match="leaves no cell"):
            compiled(text)
        return
    assert [(one.sampler, one.steps) for one in by_number(compiled(text))] == left


def test_rules_see_the_evaluations_of_steps(compiled):
    plan = compiled("steps: 10\nsweep: {sampler: [Euler, Heun]}\nskip: [{evaluations: '> 10'}]")
    assert [one.sampler for one in by_number(plan)] == ["Euler"]


ADAPTIVE = "DPM adaptive chooses its own steps, about 80 evaluations a picture"


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("", []),
        ("steps: 7", []),
        ("eta: automatic\nsampler: Euler", []),
        ("sweep: {eta: [0, .5], sampler: [Euler, Euler a, Heun]}", ["eta: no effect on Euler, Heun"]),
        ("sampler: DPM adaptive\nsweep: {steps: [5, 9]}",
         [f"{ADAPTIVE}: `steps` does not matter to it"]),
        ("sampler: DPM adaptive\ninit_image: none\nsweep: {steps: [5, 9]}",
         [f"{ADAPTIVE}: `steps` does not matter to it where there is no init_image"]),
        ("sampler: DPM adaptive\nevaluations: 20",
         [f"{ADAPTIVE}: `evaluations` does not matter to it"]),
        ("sampler: DPM adaptive\nevaluations: 20\ninit_image: none",
         [f"{ADAPTIVE}: `evaluations` does not matter to it"]),
        ("sampler: [DPM fast]\nschedule: karras".replace("[", "").replace("]", ""),
         ["schedule: no effect on DPM fast"]),
        ("rho: 3\nsweep: {schedule: [karras, beta, uniform], sampler: [Euler, DPM fast]}",
         ["rho: no effect on DPM fast; with the schedule beta, uniform",
          "schedule: no effect on DPM fast"]),
        ("variation_seed: 3\nsampler: Euler", ["variation_seed: no effect where variation_strength is 0"]),
        ("guidance_stop: .5\nsweep: {sampler: [Euler, DPM adaptive]}",
         ["guidance_stop: no effect on DPM adaptive"]),
        ("guidance_stop: .5\ncfg_scale: 1", ["guidance_stop: no effect where cfg_scale is 1"]),
        ("sweep: {guidance_stop: [0, .5], cfg_scale: [3, 5]}",
         ["cfg_scale: no effect where guidance_stop is 0"]),
        ("guidance_stop: 0\nguidance_rescale: .5", ["guidance_rescale: no effect where guidance_stop is 0"]),
        ("sweep: {deepcache_branch: [0, 1], deepcache_interval: [1, 2]}",
         ["deepcache_branch: no effect where deepcache_interval is 1"]),
        ("sweep: {deepcache_interval: [1, 2], steps: [1, 20]}",
         ["deepcache_interval: no effect at one evaluation"]),
        ("s_noise: 1.1\nsampler: Euler", ["s_noise: no effect where s_churn is 0"]),
    ],
)  # fmt: skip
def test_the_plan_says_what_does_not_matter(compiled, text, notes):
    assert sorted(compiled(text).notes) == sorted(notes)


def test_twins_are_one_picture(compiled):
    plan = compiled("sampler: DPM adaptive\nsweep: {steps: [5, 9, 20]}").keyed({"cats": "f" * 64})
    assert len(plan.cells) == 3 and len({cell.key for cell in plan.cells}) == 1


def test_every_setting_says_what_is_allowed():
    for name, setting in SETTINGS.items():
        assert re.match(r"[A-Z0-9].*\.$", setting.about), name


def test_a_misspelt_axis_is_never_proposed_for_the_right_name(compiled):
    with pytest.raises(BadInput) as caught:
        compiled("sweep: {cfg_scal: [1, 2]}\nsheet: {columns: cfg_scale}\nskip: [{cfg_scal: 1}]")
    [problem] = caught.value.problems
    assert "cfg_scal is not a setting; did you mean 'cfg_scale'?" in problem.what


@pytest.mark.parametrize(
    ("alias", "sampler", "schedule"),
    [
        ("k_dpmpp_2m_ka", "DPM++ 2M", "karras"),
        ("k_dpmpp_2m_sde_exp", "DPM++ 2M SDE", "exponential"),
        ("k_dpmpp_2m_sde_heun_exp", "DPM++ 2M SDE Heun", "exponential"),
        ("k_dpmpp_3m_sde_exp", "DPM++ 3M SDE", "exponential"),
    ],
)
def test_aliases_of_a1111_say_the_schedule(alias, sampler, schedule):
    row, named = BUILT_IN.find(alias)
    assert (row.name, named) == (sampler, schedule)
