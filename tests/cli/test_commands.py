import json
import re
import shutil
import subprocess
import sys

import pytest

from farm.cli import listing
from farm.counting import ddim_steps
from farm.job import job_schema
from farm.sampling import BUILT_IN, SAMPLERS
from farm.workspace import shipped

HEAVY = ("torch", "ray", "diffusers", "transformers", "pandas", "scipy")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "small.yaml"],
        ["plan", "small.yaml", "--explain", "--order", "coarse"],
        ["check", "small.yaml"],
        ["prompt", "--help"],
        ["samplers"],
        ["samplers", "--diffusers"],
        ["schedules"],
        ["models"],
        ["models", "lora", "--json"],
        ["models", "convert", "--help"],
        ["schema"],
    ],
    ids=" ".join,
)
def test_what_renders_nothing_imports_nothing_heavy(workspace, arguments):
    code = (
        "import sys, farm.cli\n"
        f"sys.argv = ['farm', *{arguments!r}]\n"
        "try:\n    farm.cli.main()\n"
        f"finally:\n    print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=workspace, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == "HEAVY []"


def test_samplers_lists_every_sampler(farm):
    rows = json.loads(farm("samplers", "--json").out)
    assert [row["name"] for row in rows] == [row.name for row in SAMPLERS]
    said = farm("samplers").out
    assert "k_euler_a" in said and "diffusers:ClassName" in said


def test_samplers_counts_evaluations_at_any_steps(farm):
    rows = {row["name"]: row for row in json.loads(farm("samplers", "--steps", "7", "--json").out)}
    assert rows["Heun"]["evaluations_at_7_steps"] == 13
    assert rows["DDIM"]["evaluations_at_7_steps"] == ddim_steps(7)
    assert (rows["DPM fast"]["takes_schedules"], rows["DPM fast"]["schedule"]) == (False, None)
    assert (rows["Heun"]["takes_schedules"], rows["Heun"]["schedule"]) == (True, "uniform")
    assert "k-diffusion" in rows["Heun"]["source"]


def test_schedulers_of_diffusers_are_listed_with_their_options(farm):
    rows = {row["name"]: row["options"] for row in json.loads(farm("samplers", "--diffusers", "--json").out)}
    options = rows["diffusers:DPMSolverMultistepScheduler"]
    assert options["solver_order"] == {"default": 2}
    assert options["lambda_min_clipped"] == {"default": "-inf"}
    assert options["timestep_spacing"] == {
        "default": "linspace",
        "allowed": ["linspace", "leading", "trailing"],
    }
    said = farm("samplers", "--diffusers").out.splitlines()
    assert said.index("diffusers:LCMScheduler") and "solver_order=2, " in " ".join(said)


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("command", ["samplers", "samplers --diffusers", "schedules"])
def test_listings_fit_a_terminal_and_break_no_word(farm, monkeypatch, command, columns):
    piped = farm(*command.split()).out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = farm(*command.split()).out
    assert max(map(len, shown.splitlines())) <= min(columns, listing.WIDEST)
    assert sorted(shown.split()) == sorted(piped.split())


def test_samplers_without_a_schedule_are_not_shown_with_one(farm):
    lines = farm("samplers").out.splitlines()
    assert [line.split()[-1] for line in lines if "k_dpm_fast" in line or "k_dpm_ad" in line] == ["none"] * 2


def test_a_word_is_never_broken(farm, workspace, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    models = workspace / "models" / "Stable-diffusion"
    (models / "tiny-cats").rename(models / "tiny-cats-with-a-name-that-is-long")
    assert "tiny-cats-with-a-name-that-is-long" in farm("models").out


@pytest.mark.parametrize(
    ("sampler", "wanted"),
    [
        ("diffusers:FlowMatchEulerDiscrete", "flow_prediction"),
        ("diffusers:EulerDiscrete(prediction_type=v_prediction)", "v_prediction"),
    ],
)
def test_a_scheduler_that_expects_another_network_is_a_mistake_of_the_job(farm, sampler, wanted):
    said = farm("check", "small.yaml", "--set", f"sampler=Euler, {sampler}")
    assert said.code == 2 and len(said.err.splitlines()) == 1
    assert said.err.startswith(f"--set sampler=Euler, {sampler}: sampler: diffusers:")
    why = f"it is for networks that predict {wanted}; the checkpoint's predicts epsilon"
    assert said.err.rstrip().endswith(f" cannot serve 'tiny-cats': {why}")


def test_zero_terminal_snr_of_a_scheduler_that_has_none_is_a_mistake_of_the_job(farm):
    options = ("--set", "zero_terminal_snr=true", "--set")
    said = farm("check", "small.yaml", *options, "sampler=diffusers:DPMSolverSDE")
    assert said.code == 2 and len(said.err.splitlines()) == 1
    assert "zero_terminal_snr: diffusers:DPMSolverSDEScheduler cannot have it" in said.err
    assert farm("check", "small.yaml", *options, "sampler=diffusers:DDIM").code == 0


@pytest.mark.parametrize(
    ("sampler", "limits", "what"),
    [
        (
            "Euler",
            "sigma_min=15",
            "sigma_min: 15 is not allowed for tiny-cats with the schedule uniform; less",
        ),
        (
            "Euler Karras",
            "sigma_max=.01",
            "sigma_max: 0.01 is not allowed for tiny-cats with the schedule karras",
        ),
        (
            "LCM",
            "sigma_max=.1",
            "sigma_max: 0.1 is not allowed for tiny-cats with the schedule uniform; more than 0.1",
        ),
        ("Euler", "sigma_min=1,15", "sigma_min: 15 is not allowed"),
    ],
)
def test_sigmas_that_the_model_does_not_know_are_a_mistake_of_the_job(farm, sampler, limits, what):
    said = farm("check", "small.yaml", "--set", f"sampler={sampler}", "--set", limits)
    assert said.code == 2 and len(said.err.splitlines()) == 1
    assert said.err.startswith(f"--set {limits}: {what}")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid' of the checkpoint is not supported"),
        ({"num_train_timesteps": "1000"}, "the checkpoint's noise levels cannot be computed: TypeError"),
        ({"trained_betas": [0.0, 0.1]}, "the checkpoint's noise levels cannot be computed: ValueError"),
        ({"trained_betas": [0.2, -0.1]}, "the checkpoint's noise levels do not rise"),
        ("{", "cannot be read"),
    ],
)
@pytest.mark.parametrize("limits", [(), ("--set", "sigma_min=.1")], ids=["plain", "limited"])
def test_a_checkpoint_with_odd_noise_levels_is_a_mistake_of_the_job(farm, workspace, config, why, limits):
    folder = workspace / "models" / "Stable-diffusion" / "odd"
    shutil.copytree(shipped() / "models" / "Stable-diffusion" / "tiny-cats", folder)
    file = folder / "scheduler" / "scheduler_config.json"
    text = config if isinstance(config, str) else json.dumps(json.loads(file.read_text()) | config)
    file.write_text(text)
    said = farm("check", "small.yaml", "--set", "model=odd", *limits)
    assert said.code == 2 and len(said.err.splitlines()) == 1
    assert said.err.startswith("--set model=odd: model: 'odd' cannot be used; ") and why in said.err


def test_a_scheduler_that_does_not_fit_is_told_once(farm):
    both = ("--set", "sampler=diffusers:FlowMatchEulerDiscrete", "--set", "zero_terminal_snr=true,false")
    assert len(farm("check", "small.yaml", *both).err.splitlines()) == 1


def test_schedules_lists_every_schedule(farm):
    rows = json.loads(farm("schedules", "--json").out)
    assert [row["name"] for row in rows] == list(BUILT_IN.schedules)
    assert "SGM Uniform" in farm("schedules").out


def test_the_plan_tells_steps_twins_and_what_does_not_matter(farm):
    said = farm(
        "plan",
        "small.yaml",
        "--set",
        "evaluations=10,20",
        "--set",
        "sampler=Heun,DPM adaptive",
        "--set",
        "eta=.5",
    ).out
    assert "small: 8 cells, 6 different pictures" in said
    assert "\nsteps: Heun 5, 10\n" in said
    assert "DPM adaptive chooses its own steps, about 80 evaluations a picture: `evaluations`" in said
    assert "eta: no effect on Heun" in said


def test_branches_that_a_network_does_not_have_are_found_before_anything_is_rendered(farm, workspace):
    right = ("check", "small.yaml", "--set", "deepcache_interval=2", "--set", "deepcache_branch=0-3")
    assert farm(*right).code == 0
    assert farm("check", "small.yaml", "--set", "deepcache_branch=9").code == 0  # it has no effect
    wrong = (*right[:4], "--set", "deepcache_branch=3-5")
    said = farm(*wrong)
    assert said.code == 2
    assert said.err.splitlines() == [
        f"--set deepcache_branch=3-5: deepcache_branch: {branch} is too much for 'tiny-cats': "
        "the last of its 4 skip connections is 3"
        for branch in (4, 5)
    ]
    config = workspace / "models" / "Stable-diffusion" / "tiny-cats" / "unet" / "config.json"
    written = config.read_text()
    for text, why in [
        ("[]", "is not a mapping"),
        ("{}", "does not say what blocks there are"),
        ("", "cannot"),
    ]:
        config.write_text(text)
        said = farm(*right)
        assert said.code == 2 and "deepcache_interval: 'tiny-cats' cannot have it; " in said.err
        assert f"unet/config.json {why}" in said.err
    config.write_text(written)
    assert farm(*right).code == 0


def test_the_plan_tells_rows_that_are_shallow(farm):
    said = farm("plan", "small.yaml", "--set", "deepcache_interval=2").out
    # of three evaluations one, with a row at CFG 1 and two at 5, for both samplers
    assert "\nof these through its shallow blocks alone: 6\n" in said
    assert "shallow" not in farm("plan", "small.yaml").out


ONE = "name: one\nmodel: tiny-cats\nprompt: a cat\nwidth: 64\nheight: 64\nsteps: 1\n"


def test_one_is_told_as_one(farm, workspace):
    (workspace / "one.yaml").write_text(ONE, encoding="utf-8")
    assert farm("check", "one.yaml").out == "one: 1 cell, no mistakes\n"
    said = farm("plan", "one.yaml").out
    assert said.startswith("one: 1 cell\n") and "pictures on disk: about 8 kB, " in said
    twins = farm("plan", "one.yaml", "--set", "sampler=DPM adaptive", "--set", "steps=1,2").out
    assert twins.startswith("one: 2 cells, 1 different picture\n")
    assert "about 1.8 MB, " in farm("plan", "one.yaml", "--set", "width=1024", "--set", "height=1024").out


def test_titles_with_commas_are_told_from_several(farm, workspace):
    (workspace / "one.yaml").write_text(ONE + "sweep: {negative_prompt: ['a, \"b\"', c]}\n", encoding="utf-8")
    assert '\n  negative_prompt: "a, ""b""", c\n' in farm("plan", "one.yaml").out


MIXED = """\
name: mixed
model: tiny-cats
height: 64
seed: 7
prompt: a cat
sweep:
  cfg_scale: 1-9
  sampler: [Euler, Heun, DPM adaptive]
  prompt: [a cat, a cat BREAK a hat]
  width: [64, 96]
  precision: [fp32, auto]
"""


def test_the_order_is_explained(farm, workspace):
    (workspace / "mixed.yaml").write_text(MIXED, encoding="utf-8")
    facts = json.loads(farm("plan", "mixed.yaml", "--explain", "--json").out)
    told = facts["explanation"]
    assert (told["order"], told["loads"], told["waves"], facts["cells"]) == ("fast", 2, 1, 216)
    first, second = told["stretches"]
    assert (first["precision"], second["precision"], first["is_loaded"]) == ("fp32", "auto", False)
    assert (first["cells"], first["groups"], first["grouped"], first["guessed"]) == (108, 4, 108, 36)
    kinds = [(one["width"], one["chunks"], one["cells"]) for one in first["batches"]]
    # no row of the negative prompt at cfg_scale 1, and the prompt of one chunk is as long as that
    assert kinds == [(64, 1, 51), (64, 2, 27), (96, 1, 51), (96, 2, 27)]
    rows = [one["rows"] for stretch in told["stretches"] for one in stretch["batches"]]
    assert sum(rows) == facts["rows"] == sum(stretch["rows"] for stretch in told["stretches"])
    assert sum(stretch["shared_rows"] for stretch in told["stretches"]) == facts["shared_rows"]


def test_the_order_is_explained_in_words(farm, workspace):
    (workspace / "mixed.yaml").write_text(MIXED, encoding="utf-8")
    plain = farm("plan", "mixed.yaml").out
    said = farm("plan", "mixed.yaml", "--explain").out
    assert said.startswith(plain + "\norder: fast\n")
    assert "\ndifferent networks: 2; loads, with one worker: 2\n" in said
    assert "\n1. tiny-cats in fp32: 108 cells\n   sizes: 64x64, 96x64; chunks: 1, 2\n" in said
    assert "\n   evaluations of a cell: 80 to 20; 36 cells first, whose sampler chooses its steps\n" in said
    coarse = farm("plan", "mixed.yaml", "--explain", "--order", "coarse").out
    assert "\norder: coarse\nEvery 4th value of each axis" in coarse
    assert "\ndifferent networks: 2; loads, with one worker: 2\n" in coarse
    assert re.findall(r"^\d\. (wave \d, tiny-cats.*): ", coarse, re.MULTILINE) == [
        "wave 1, tiny-cats in fp32",
        "wave 1, tiny-cats",
        "wave 2, tiny-cats (still loaded)",
        "wave 2, tiny-cats in fp32 (still loaded)",
        "wave 3, tiny-cats in fp32 (still loaded)",
        "wave 3, tiny-cats (still loaded)",
    ]


APPROXIMATE = """\
name: approximate
model: tiny-cats
prompt: a cat AND a hat :0.5
negative_prompt: blurry
width: 64
height: 64
steps: 7
sweep:
  cfg_scale: [1, 5]
  guidance_stop: [0.5, 1]
  token_merging_ratio: [0, 0.5]
  deepcache_interval: [1, 3]
"""


def test_approximate_rows_are_explained_apart(farm, workspace):
    (workspace / "approximate.yaml").write_text(APPROXIMATE, encoding="utf-8")
    facts = json.loads(farm("plan", "approximate.yaml", "--explain", "--json").out)
    [told] = facts["explanation"]["stretches"]
    rows = {one["approximation"]: one["rows"] for one in told["batches"]}
    assert sum(rows.values()) == facts["rows"] and rows.keys() == {
        "",
        "50% of tokens merged",
        "deep features kept",
        "shallow",
        "50% of tokens merged, deep features kept",
        "50% of tokens merged, shallow",
    }
    assert rows["shallow"] + rows["50% of tokens merged, shallow"] == facts["shallow_rows"]


def test_the_explanation_of_much_is_short(farm, workspace, monkeypatch):
    monkeypatch.setattr("farm.cli.explain.MOST_STRETCHES", 7)
    (workspace / "one.yaml").write_text(ONE, encoding="utf-8")
    sizes = ",".join(str(64 + 8 * number) for number in range(40))
    many = ("--set", f"width={sizes}", "--set", "precision=fp32,fp16,bf16,auto", "--set", "seed=1-9")
    said = farm("plan", "one.yaml", "--explain", "--order", "coarse", *many).out
    stretches = json.loads(farm("plan", "one.yaml", "--explain", "--order", "coarse", "--json", *many).out)
    rest = [stretch["cells"] for stretch in stretches["explanation"]["stretches"][7:]]
    assert len(rest) == 2 and f"\n… 2 more like these, with {sum(rest)} cells; --json has" in said
    assert len(said.splitlines()) < 200 and "     … 32 more kinds: " in said and ", … 40 in all; " in said


def test_an_order_of_a_plan_goes_with_its_explanation(farm):
    said = farm("plan", "small.yaml", "--order", "coarse")
    assert said.code == 2 and said.err.startswith("--order: goes with --explain")


@pytest.mark.parametrize("command", [("run", "--inline"), ("plan", "--explain")])
@pytest.mark.parametrize("option", ["--order", "--precision"])
def test_names_that_options_do_not_know_are_one_line_that_says_which_there_are(farm, command, option):
    said = farm(command[0], "small.yaml", command[1], option, "best")
    allowed = {"--order": "fast or coarse", "--precision": "auto, fp32, fp16 or bf16"}[option]
    assert (said.code, said.err) == (2, f"{option}: 'best' is not known ({allowed})\n")


def test_orders_are_known_in_any_case(farm):
    assert "order: coarse" in farm("plan", "small.yaml", "--explain", "--order", "Coarse").out


def test_a_precision_of_a_plan_is_that_of_its_pictures(farm):
    told = farm("plan", "small.yaml", "--explain", "--set", "precision=fp16", "--precision", "BF16").out
    assert "tiny-cats in bf16" in told


def test_schema_is_written_for_editors(farm, workspace):
    assert json.loads(farm("schema").out) == json.loads(json.dumps(job_schema()))
    farm("schema", "-o", workspace / "schema.json")
    assert json.loads((workspace / "schema.json").read_text()) == json.loads(json.dumps(job_schema()))


def test_init_makes_a_folder_in_which_the_example_jobs_are_right(farm, workspace, monkeypatch):
    assert farm("init", "studio").code == 0
    monkeypatch.chdir(workspace / "studio")
    jobs = sorted((workspace / "studio" / "jobs").glob("*.yaml"))
    assert {job.name for job in jobs} == {job.name for job in (shipped() / "jobs").glob("*.yaml")}
    said = farm("check", *jobs)
    assert said.code == 0, said.err


def test_init_leaves_a_folder_alone_that_holds_something(farm, workspace):
    said = farm("init", ".")
    assert said.code == 2
    assert "is there already and not empty" in said.err


def test_an_unknown_option_is_bad_input(farm):
    said = farm("run", "small.yaml", "--inlin")
    assert said.code == 2
    assert "--inlin" in said.err


def test_a_job_that_is_not_there(farm):
    said = farm("plan", "nowhere.yaml")
    assert said.code == 2
    assert said.err.startswith("nowhere.yaml")


def test_options_that_exclude_each_other_are_bad_input(farm):
    said = farm("run", "small.yaml", "--inline", "--workers", "2")
    assert said.code == 2
    assert said.err == "--workers: goes with Ray; --inline renders in this process alone\n"


def test_what_the_system_refuses_is_one_line(farm, workspace):
    said = farm("init", "small.yaml/studio")
    assert said.code == 1
    assert said.err.startswith("farm: ") and said.err.count("\n") == 1 and "Traceback" not in said.err
