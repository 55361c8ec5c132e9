import gzip
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from farm.results import sheet
from farm.results.infotext import read_cell
from tests.cli.conftest import JOB, journal


def index(workspace, job="small"):
    return pd.read_csv(workspace / "results" / job / "index.csv", keep_default_na=False)


def test_a_job_becomes_pictures_an_index_sheets_and_a_page(farm, workspace):
    said = farm("run", "small.yaml", "--inline")
    assert said.code == 0, said.err
    table = index(workspace)
    assert list(table.status) == ["done"] * 4
    assert list(table.columns[:3]) == ["cell", "cfg_scale", "sampler"]
    assert (table.sharpness > 0).all()
    folder = workspace / "results" / "small"
    for file in table.file:
        assert Image.open(folder / file).size == (64, 64)
    assert [path for path in folder.glob("sheets/*.png") if str(path.relative_to(workspace)) in said.out]
    assert "index.html" in said.out and (folder / "index.html").exists()
    assert "small" in (workspace / "results" / "index.html").read_text(encoding="utf-8")


def test_a_run_ends_with_what_was_done_which_is_what_was_planned(farm, workspace):
    assert "time: not known before a first run" in farm("plan", "small.yaml").out
    planned = json.loads(farm("plan", "small.yaml", "--json").out)
    assert planned["estimate"] is None
    said = farm("run", "small.yaml", "--inline").err
    done = f"{planned['evaluations']} evaluations of what is done, {planned['rows']} rows through the UNet"
    assert f"small: {done}; {planned['shared_rows']} more were shared" in said and "than planned" not in said
    assert re.search(
        r"small: batches \d+% full, 1 checkpoint load; \d+\.\d s of work: UNet \d+%, VAE \d+%", said
    )
    who = r"1 worker \(.+, \d+ threads?\), as measured on 20\d\d-"
    assert re.search(f"time: about .* with {who}", farm("plan", "small.yaml").out)
    estimate = json.loads(farm("plan", "small.yaml", "--set", "cfg_scale=1,3,5", "--json").out)["estimate"]
    assert 0 < estimate["seconds"] < 60 and estimate["workers"] == 1
    assert json.loads(farm("plan", "small.yaml", "--set", "width=96", "--json").out)["estimate"] is None


def test_a_plan_takes_what_the_run_of_it_took(farm, workspace):
    """Rows, shallow ones too, pictures, loads and texts: so many as are planned, at their measured time."""
    copy = workspace / "models" / "Stable-diffusion" / "other"
    shutil.copytree(copy.with_name("tiny-cats"), copy)
    scheduler = copy / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    deep = ("--set", "model=tiny-cats,other", "--set", "deepcache_interval=1,2", "--set", "cfg_scale=3")
    said = farm("run", "small.yaml", "--inline", *deep)
    assert said.code == 0 and "than planned" not in said.err
    worked = float(re.search(r"2 checkpoint loads; ([\d.]+) s of work", said.err)[1])
    estimate = json.loads(farm("plan", "small.yaml", *deep, "--json").out)["estimate"]
    assert estimate["seconds"] == pytest.approx(worked, abs=0.051)
    only = ("--set", "model=tiny-cats", "--set", "deepcache_interval=2")
    assert 0 < json.loads(farm("plan", "small.yaml", *only, "--json").out)["estimate"]["seconds"] < worked


def test_a_plan_says_what_is_there_already(farm, workspace):
    assert "already" not in farm("plan", "small.yaml").out
    assert farm("run", "small.yaml", "--inline", "--set", "cfg_scale=1,5").code == 0
    assert farm("plan", "small.yaml", "--set", "cfg_scale=1,5").out.endswith("\nall of it is there already\n")
    more = ("small.yaml", "--set", "cfg_scale=1,5,9,13")
    facts = json.loads(farm("plan", *more, "--json").out)
    assert (facts["done"], facts["cells"]) == (facts["cells"] // 2, 8)
    assert 0 < facts["estimate_of_the_others"]["seconds"] < facts["estimate"]["seconds"]
    last = farm("plan", *more).out.splitlines()[-1]
    assert re.fullmatch(r"4 of 8 cells are there already; 4 are left, which take about \d+ s", last), last
    assert "already" not in farm("plan", *more, "--results", workspace / "elsewhere").out
    low = (*more, "--set", "negative_guidance_minimum_sigma=15")  # which no cell at scale 1 has
    assert "; 6 are left, which take at most about " in farm("plan", *low).out
    farm("run", "small.yaml", "--inline", *low[1:-4], "--set", "cfg_scale=5,9,13", *low[-2:])
    facts = json.loads(farm("plan", *low, "--json").out)
    assert (facts["rows_at_most"], facts["others_at_most"]) == (True, False)


@pytest.mark.slow
def test_a_profile_says_where_the_time_went(farm, workspace):
    said = farm("run", "small.yaml", "--inline", "--profile", "--set", "steps=30")
    assert said.code == 0, said.err
    row = re.search(r"^UNet tiny-cats 64×64, 77 tokens +(\d+) +(\d+) ", said.out, re.MULTILINE)
    planned = json.loads(farm("plan", "small.yaml", "--set", "steps=30", "--json").out)
    assert int(row[2]) == planned["rows"] and int(row[1]) >= 30
    assert all(part in said.out for part in ("\nVAE ", "\nloading ", "\ntext ", "\nsamplers and the loop "))
    folder = workspace / "results" / "small" / "profile" / "inline"
    trace = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))
    names = {event.get("name", "") for event in trace["traceEvents"]}
    assert any(re.fullmatch(r"predict, \d+ rows", name) for name in names) and "aten::addmm" in names
    assert "aten::addmm" in (folder / "operators.txt").read_text(encoding="utf-8")
    short = farm("run", "small.yaml", "--inline", "--profile")
    assert "profile: no trace: each worker records one" in short.out and "\nVAE " in short.out


def test_what_was_done_otherwise_than_planned_is_said(farm, workspace):
    said = farm("run", "small.yaml", "--inline", "--set", "sampler=DPM adaptive", "--set", "cfg_scale=4").err
    assert re.search(r"that is \d+ rows (more|fewer) than planned: a sampler chooses its own steps", said)


def test_rows_that_low_noise_leaves_out_are_planned_as_the_most_that_there_may_be(farm, workspace):
    low = ("--set", "cfg_scale=5", "--set", "negative_guidance_minimum_sigma=15")
    planned = farm("plan", "small.yaml", *low, "--explain").out
    assert "\nrows through the UNet: at most 10, after 2 that are shared\n" in planned
    assert "\n   rows: at most 10, " in planned and "\ntime: not known before" in planned
    said = farm("run", "small.yaml", "--inline", *low).err
    why = "rows are left out below negative_guidance_minimum_sigma"
    assert f"that is 2 rows fewer than planned: {why}\n" in said  # of three evaluations the second, twice
    assert "\ntime: at most about " in farm("plan", "small.yaml", *low).out
    for other in ("cfg_scale=1", "steps=1"):
        facts = json.loads(farm("plan", "small.yaml", *low, "--set", other, "--json").out)
        assert facts["rows_at_most"] is False, other


def test_a_coarse_order_shows_sheets_early_and_comes_to_the_same(farm, workspace, monkeypatch):
    early = []

    def each_sheet(plan, records, folder):
        early.append({cell.number for cell in plan.cells if cell.key in records})
        return sheet.each_sheet(plan, records, folder)

    class AtOnce(ThreadPoolExecutor):
        def submit(self, *what):
            (future := super().submit(*what)).exception()
            return future

    monkeypatch.setattr("farm.cli.early.each_sheet", each_sheet)
    monkeypatch.setattr("farm.cli.early.ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr("farm.render.capacity.CPU_ROWS", 2)  # so that little is in flight where a wave ends
    job = ("run", "small.yaml", "--inline", "--set", "cfg_scale=1-9", "--set", "sampler=Euler")
    said = farm(*job, "--order", "coarse")
    assert said.code == 0, said.err
    assert len(early) == 2 and {1, 5, 9} <= early[0] < early[1] and {3, 7} <= early[1]
    assert f"small: {len(early[0])} of 9 cells are there, spread over the axes: " in said.err
    assert "spread over the axes" not in farm(*job, "--results", workspace / "fast").err
    coarse = index(workspace)
    fast = pd.read_csv(workspace / "fast" / "small" / "index.csv", keep_default_na=False)
    same = coarse.columns.drop(["seconds", "sharpness"])
    assert coarse[same].equals(fast[same])
    for name in coarse.file:
        one, other = (workspace / folder / "small" / name for folder in ("results", "fast"))
        assert abs(np.asarray(Image.open(one), int) - np.asarray(Image.open(other), int)).max() <= 2
    assert "9 are there already, 0 to render" in farm(*job).err


def test_what_is_there_is_not_rendered_again(farm, workspace):
    farm("run", "small.yaml", "--inline")
    before = journal(workspace)
    said = farm("run", "small.yaml", "--inline")
    assert said.code == 0
    assert "4 are there already, 0 to render" in said.err
    assert journal(workspace) == before


def test_an_extended_job_renders_only_what_is_new(farm, workspace):
    farm("run", "small.yaml", "--inline")
    said = farm("run", "small.yaml", "--inline", "--set", "cfg_scale=1,3,5")
    assert "6 cells, 4 are there already, 2 to render" in said.err
    assert len(journal(workspace)) == 6
    assert list(index(workspace).status) == ["done"] * 6


def test_precision_is_an_option(farm, workspace):
    said = farm("run", "small.yaml", "--inline", "--set", "precision=fp16", "--precision", "BF16")
    assert said.code == 0, said.err
    assert set(index(workspace).precision) == {"bf16"}
    said = farm("run", "small.yaml", "--inline", "--precision", "fp61")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert said.err.startswith("--precision: ") and "fp16" in said.err


def test_a_changed_job_shows_no_stale_picture(farm, workspace):
    farm("run", "small.yaml", "--inline")
    stale = set(index(workspace).file)
    said = farm("run", "small.yaml", "--inline", "--set", "prompt=a black cat")
    assert "4 cells, 4 to render" in said.err
    assert not stale & set(index(workspace).file)
    assert set(index(workspace).prompt) == {"a black cat"}


def test_changed_weights_make_other_pictures(farm, workspace):
    farm("run", "small.yaml", "--inline")
    scheduler = workspace / "models/Stable-diffusion/tiny-cats/scheduler/scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    assert "4 cells, 4 to render" in farm("run", "small.yaml", "--inline").err


def test_random_seeds_are_drawn_once(farm, workspace):
    (workspace / "small.yaml").write_text(JOB.replace("seed: 7", "seed: random\nseeds: 2"))
    farm("run", "small.yaml", "--inline")
    seeds = list(index(workspace).seed)
    said = farm("run", "small.yaml", "--inline")
    assert "0 to render" in said.err
    assert list(index(workspace).seed) == seeds and len(set(seeds)) == 2


def test_a_cell_that_fails_is_named_and_the_others_are_done(farm, workspace):
    said = farm("run", "small.yaml", "--inline", "--set", "clip_skip=1,9", "--set", "cfg_scale=5")
    assert said.code == 1
    assert "clip_skip 9 is too much for tiny-cats: its text encoder has 3 layers" in said.err
    assert "clip_skip: 9" in said.err
    table = index(workspace)
    assert set(table.status[table.clip_skip == 1]) == {"done"}
    assert set(table.status[table.clip_skip == 9]) == {"failed"}
    assert list((workspace / "results" / "small" / "sheets").glob("*.png"))


def test_a_plugin_that_raises_fails_its_cell_by_name(farm, workspace):
    (workspace / "plugins").mkdir()
    (workspace / "plugins" / "picky.py").write_text(
        "from farm.hooks import hookimpl\n"
        "@hookimpl\n"
        "def score_image(image, cell, settings):\n"
        "    if cell.settings.cfg_scale == 5:\n"
        "        raise ValueError('five is too much')\n"
        "    return {'picky': 1.0}\n"
    )
    (workspace / "small.yaml").write_text(JOB.replace("sharpness", "picky"))
    said = farm("run", "small.yaml", "--inline")
    assert said.code == 1
    assert "plugin 'picky' failed in score_image: ValueError: five is too much" in said.err
    assert sorted(index(workspace).status) == ["done", "done", "failed", "failed"]


def test_a_score_that_is_added_later_renders_nothing(farm, workspace):
    farm("run", "small.yaml", "--inline")
    at_once = index(workspace)
    (workspace / "results" / "small").rename(workspace / "at_once")
    (workspace / "small.yaml").write_text(JOB.replace("plugins:\n  sharpness: {}", ""))
    assert farm("run", "small.yaml", "--inline").code == 0
    assert "sharpness" not in index(workspace).columns
    (workspace / "small.yaml").write_text(JOB)
    said = farm("run", "small.yaml", "--inline")
    assert said.code == 0
    assert "4 are there already, 0 to render" in said.err
    assert "4 pictures that were there already are scored" in said.err
    assert list(index(workspace).sharpness) == pytest.approx(list(at_once.sharpness))
    assert "scored" not in farm("run", "small.yaml", "--inline").err


def test_mistakes_of_all_jobs_come_at_once(farm, workspace):
    (workspace / "other.yaml").write_text(
        JOB.replace("steps: 3", "steps: 0").replace("tiny-cats", "tiny-cat")
    )
    (workspace / "third.yaml").write_text(JOB.replace("sampler:", "samplr:"))
    said = farm("run", "other.yaml", "third.yaml", "--inline")
    assert said.code == 2
    assert said.out == ""
    assert "other.yaml:2: model: 'tiny-cat' is not known; did you mean 'tiny-cats'?" in said.err
    assert "other.yaml:7: steps: 0 is not allowed" in said.err
    assert "third.yaml:10:" in said.err and "samplr" in said.err
    assert not (workspace / "results").exists()


def test_two_jobs_of_one_name_are_refused(farm, workspace):
    (workspace / "again.yaml").write_text(JOB)
    said = farm("run", "small.yaml", "again.yaml", "--inline")
    assert said.code == 2
    assert "again.yaml: another job of this command is called 'small' too" in said.err


def test_a_plan_says_what_a_run_does(farm, workspace):
    said = farm("plan", "small.yaml", "--json")
    assert said.code == 0
    facts = pd.json_normalize(pd.read_json(pd.io.common.StringIO(said.out), typ="series").to_dict())
    # Two samplers of three steps, at CFG 1 (one row each) and 5 (two rows); the first rows are shared by all.
    assert int(facts.cells[0]) == 4
    assert int(facts.evaluations[0]) == 12
    assert int(facts.rows[0]) + int(facts.shared_rows[0]) == 2 * 3 * (1 + 2)
    assert int(facts.rows[0]) == 2 * 2 * (1 + 2) + 2
    assert int(facts.text_encodings[0]) == 2


@pytest.mark.slow
def test_workers_on_ray_render_the_same_pictures(farm, workspace):
    assert farm("run", "small.yaml", "--inline", "--results", "inline").code == 0
    said = farm("run", "small.yaml", "--workers", "2")
    assert said.code == 0, said.err
    table = index(workspace)
    assert list(table.status) == ["done"] * 4
    for file in table.file:
        ours = np.asarray(Image.open(workspace / "results" / "small" / file)).astype(int)
        theirs = np.asarray(Image.open(workspace / "inline" / "small" / file)).astype(int)
        assert abs(ours - theirs).max() <= 2


def test_evaluations_are_those_that_were_counted(farm, workspace):
    chosen = ("--set", "sampler=DPM adaptive", "--set", "evaluations=9", "--set", "cfg_scale=1")
    assert farm("run", "small.yaml", "--inline", *chosen).code == 0
    [record] = map(json.loads, journal(workspace))
    cell = read_cell(workspace / "results" / "small" / record["file"])
    assert record["evaluations"] == cell.evaluations == index(workspace).evaluations[0]
    assert 20 < cell.evaluations < 80  # which is what the plan says


def test_a_drawn_seed_outlives_a_run_that_does_not_need_it(farm, workspace):
    (workspace / "small.yaml").write_text(JOB.replace("seed: 7", "seed: random"))
    farm("run", "small.yaml", "--inline")
    [drawn] = set(index(workspace).seed)
    assert "4 to render" in farm("run", "small.yaml", "--inline", "--set", "seed=5").err
    assert set(index(workspace).seed) == {5}
    assert "4 are there already, 0 to render" in farm("run", "small.yaml", "--inline").err
    assert set(index(workspace).seed) == {drawn}


@pytest.mark.parametrize("how", ["--inline", pytest.param("--workers=1", marks=pytest.mark.slow)])
def test_a_workspace_plugin_adds_a_sampler_and_a_schedule(farm, workspace, how):
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    [code] = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Midpoint" in code]
    (workspace / "plugins").mkdir()
    (workspace / "plugins" / "midpoint.py").write_text(code, encoding="utf-8")
    names = "[Euler a, LMS, Midpoint, LMS Squares, diffusers:DDIMScheduler]"
    job = JOB.replace("[Euler a, LMS]", names).replace("plugins:\n", "plugins:\n  midpoint: {}\n")
    (workspace / "small.yaml").write_text(job, encoding="utf-8")
    said = farm("run", "small.yaml", how)
    assert said.code == 0, said.err
    table = index(workspace)
    assert list(table.status) == ["done"] * 10
    assert list(table.schedule[:5]) == ["uniform", "uniform", "uniform", "squares", "automatic"]
    assert list(table.evaluations[:3]) == [3, 3, 6]
    pictures = [np.asarray(Image.open(workspace / "results" / "small" / file)) for file in table.file]
    assert len({picture.tobytes() for picture in pictures}) == 10


def test_twins_are_rendered_once_and_shown_twice(farm, workspace):
    said = farm(
        "run", "small.yaml", "--inline", "--set", "cfg_scale=5", "--set", "eta=0,1", "--set", "sampler=LMS"
    )
    assert said.code == 0, said.err
    table = index(workspace)
    assert list(table.eta) == [0, 1] and list(table.status) == ["done"] * 2
    assert len(set(table.file)) == 1 and len(journal(workspace)) == 1


def test_a_job_of_one_cell_that_fails_is_told_without_empty_brackets(farm, workspace):
    (workspace / "plugins").mkdir()
    (workspace / "plugins" / "faulty.py").write_text(
        "from farm.hooks import hookimpl\n@hookimpl\ndef transform_image(image): raise ValueError('no')\n"
    )
    (workspace / "small.yaml").write_text(
        JOB.partition("sweep:")[0] + "plugins: {faulty: }\n", encoding="utf-8"
    )
    said = farm("run", "small.yaml", "--inline")
    assert said.code == 1
    assert "small: 1 cell, 1 to render\n" in said.err
    assert "small: cell 1 failed: plugin 'faulty' failed in transform_image: ValueError: no" in said.err
