import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

JOB = """\
name: changed
model: tiny-cats
prompt: a ginger cat on a blue background
width: 64
height: 64
seed: 7
steps: 4
init_image: cat.png
sweep:
  denoising_strength: [0.5, 1]
  sampler: [Euler a, Heun, DDIM]
  cfg_scale: [1, 5]
"""


@pytest.fixture
def jobs(workspace):
    """A folder with a job, and the picture that it starts from."""
    folder = workspace / "jobs"
    folder.mkdir()
    (folder / "changed.yaml").write_text(JOB, encoding="utf-8")
    Image.effect_noise((80, 60), 90).convert("RGB").save(folder / "cat.png")
    return folder


def index(workspace):
    return pd.read_csv(workspace / "results" / "changed" / "index.csv", keep_default_na=False)


def pictures(workspace):
    folder = workspace / "results" / "changed"
    return [np.asarray(Image.open(folder / file)).astype(int) for file in index(workspace).file]


def test_a_run_does_what_was_planned_and_goes_by_the_content_of_the_picture(farm, workspace, jobs):
    said = farm("plan", "jobs/changed.yaml")
    assert "image encodings: 1\n" in said.out
    planned = json.loads(farm("plan", "jobs/changed.yaml", "--json").out)
    said = farm("run", "jobs/changed.yaml", "--inline", "--profile")
    assert said.code == 0, said.err
    done = f"{planned['evaluations']} evaluations of what is done, {planned['rows']} rows through the UNet"
    assert f"{done}; {planned['shared_rows']} more were shared" in said.err and "than planned" not in said.err
    assert planned["shared_rows"] == 10 and planned["image_encodings"] == 1
    [row] = [line.split() for line in said.out.splitlines() if line.startswith("VAE encoder tiny-cats 64×64")]
    assert row[4:6] == ["1", "1"]  # calls and rows
    assert set(index(workspace).init_image) == {"cat.png"} and set(index(workspace).status) == {"done"}
    (jobs / "cat.png").rename(jobs / "moved.png")
    again = farm("run", "jobs/changed.yaml", "--inline", "--set", "init_image=moved.png")
    assert "12 are there already, 0 to render" in again.err
    assert "12 are there already" in farm("run", "results/changed/job.yaml", "--inline").err
    Image.new("RGB", (80, 60), "gold").save(jobs / "moved.png")
    edited = farm("run", "jobs/changed.yaml", "--inline", "--set", "init_image=moved.png")
    assert "12 cells, 12 to render" in edited.err


@pytest.mark.slow
def test_workers_are_sent_the_picture(farm, workspace, jobs):
    """Two of them; what is the same whoever renders it."""
    assert farm("run", "jobs/changed.yaml", "--inline").code == 0
    alone = pictures(workspace)
    (workspace / "results").rename(workspace / "before")
    said = farm("run", "jobs/changed.yaml", "--workers", "2")
    assert said.code == 0, said.err
    assert len(set(index(workspace).worker)) <= 2 and "inline" not in set(index(workspace).worker)
    assert max(np.abs(one - other).max() for one, other in zip(alone, pictures(workspace), strict=True)) <= 2


def test_a_picture_that_needs_no_evaluation_has_none_in_the_index_and_on_the_page(farm, workspace, jobs):
    """Adaptive steps from strength 0 have no way to go; from elsewhere, about 80 are planned."""
    one = {"sampler": "DPM adaptive", "denoising_strength": "0, 0.6", "cfg_scale": "1"}
    asked = [part for name, value in one.items() for part in ("--set", f"{name}={value}")]
    assert json.loads(farm("plan", "jobs/changed.yaml", *asked, "--json").out)["evaluations"] == 80
    assert farm("run", "jobs/changed.yaml", "--inline", *asked).code == 0
    least, more = index(workspace).evaluations
    assert least == 0 < more != 80
    page = (workspace / "results" / "changed" / "index.html").read_text(encoding="utf-8")
    assert '"evaluations":0,' in page and f'"evaluations":{more},' in page


@pytest.mark.slow
def test_jobs_of_one_command_may_have_more_pixels_than_go_to_workers(farm, workspace, jobs, monkeypatch):
    other = JOB.replace("name: changed", "name: other").replace("width: 64", "width: 72")
    (jobs / "other.yaml").write_text(other, encoding="utf-8")
    monkeypatch.setattr("farm.cli.rendering.MAX_OF_PIXELS", 64 * 64 * 3 + 64 * 72 * 3 - 1)
    said = farm("run", "jobs/changed.yaml", "jobs/other.yaml", "--inline")
    assert said.code == 1 and "of pixels together; render these jobs one by one\n" in said.err
    assert farm("run", "jobs/changed.yaml", "--inline").code == 0
    said = farm("run", "jobs/changed.yaml", "jobs/other.yaml", "--inline")
    assert said.code == 0 and said.err.count("preparing 1 picture to start from\n") == 1
    said = farm("run", "jobs/changed.yaml", "jobs/other.yaml", "--inline")
    assert said.code == 0 and "preparing" not in said.err and "loading" not in said.err


def test_more_pixels_than_go_to_workers_are_refused(farm, jobs, monkeypatch):
    monkeypatch.setattr("farm.cli.misfits.MAX_OF_PIXELS", 64 * 64 * 3 + 64 * 72 * 3 - 1)
    assert farm("check", "jobs/changed.yaml").code == 0
    said = farm("check", "jobs/changed.yaml", "--set", "width=64, 72")
    assert said.code == 2 and "2 pictures to start from are 0.0 GiB of pixels; at most" in said.err


@pytest.mark.parametrize("command", ["plan", "check", "run"])
def test_a_picture_that_cannot_be_used_is_one_line_before_anything_is_rendered(
    farm, workspace, jobs, command
):
    (jobs / "cat.png").write_bytes(b"no picture")
    said = farm(command, "jobs/changed.yaml")
    fault = "is none of PNG, JPEG, WEBP, BMP, GIF and TIFF, which can be read"
    assert (said.code, said.err) == (2, f"jobs/changed.yaml:8: init_image: 'cat.png' {fault}\n")
    (jobs / "cat.png").unlink()
    said = farm(command, "jobs/changed.yaml")
    assert said.code == 2 and said.err.count("\n") == 1
    assert said.err.startswith(
        "jobs/changed.yaml:8: init_image: 'cat.png' is not there; the path of a picture"
    )
    assert not (workspace / "results").exists()
