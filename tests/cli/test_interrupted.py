import json
import os
import signal
import sys
import time

import pandas as pd
import psutil
import pytest
from PIL import Image

from tests.cli.conftest import JOB, journal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX"),
]

MANY = JOB.replace("steps: 3", "steps: 12").replace("[1, 5]", "1-12")
CELLS = 24


@pytest.fixture(autouse=True)
def many(workspace):
    (workspace / "small.yaml").write_text(MANY)


def wait_for_lines(workspace, process, lines):
    while len(journal(workspace)) < lines:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def ray_workers(process):
    """The command's own: other farms may run on this machine."""
    family = psutil.Process(process.pid).children(recursive=True)
    return [one for one in family if title(one).startswith("ray::_Actor")]


def title(process):
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def wait_until_gone(family):
    """Nothing may go on without the command that started it; what only waits to be reaped is gone."""
    deadline = time.monotonic() + 60
    while left := [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def check_whole(workspace):
    folder = workspace / "results" / "small"
    table = pd.read_csv(folder / "index.csv")
    assert list(table.status) == ["done"] * CELLS
    for file in table.file:
        Image.open(folder / file).load()
    assert sorted(path.name for path in (folder / "images").iterdir()) == sorted(
        file.removeprefix("images/") for file in table.file
    )


@pytest.mark.parametrize("options", [["--inline"], ["--workers", "2"]], ids=["inline", "ray"])
def test_killed_in_the_middle_it_goes_on_where_it_stopped(farm, start_farm, workspace, options):
    process = start_farm("run", "small.yaml", *options)
    wait_for_lines(workspace, process, CELLS // 3)
    family = psutil.Process(process.pid).children(recursive=True)
    assert ray_workers(process) or "--inline" in options
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_until_gone(family)
    committed = [json.loads(line)["key"] for line in journal(workspace) if line.endswith("}")]
    assert len(committed) < CELLS, "it was killed too late to tell anything"
    said = farm("run", "small.yaml", *options)
    assert said.code == 0, said.err
    keys = [json.loads(line)["key"] for line in journal(workspace)]
    assert keys[: len(committed)] == committed
    assert len(keys) == len(set(keys)) == CELLS
    check_whole(workspace)


def test_interrupted_it_keeps_what_is_done_and_says_so(start_farm, workspace):
    job = ("small.yaml", "--set", "steps=60")  # some seconds
    sheets = workspace / "results" / "small" / "sheets"
    sheets.mkdir(parents=True)
    (sheets / "sheet-001-of-another-layout.png").touch()
    process = start_farm("run", *job, "--inline")
    wait_for_lines(workspace, process, 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"page:  {workspace}" in out and (workspace / "results" / "small" / "index.html").is_file()
    assert "interrupted" in err and "the same command goes on from there" in err
    assert "Traceback" not in err
    assert [sheet.name for sheet in sheets.iterdir()] == ["sheet.png"]
    table = pd.read_csv(workspace / "results" / "small" / "index.csv")
    assert len(table) == CELLS and (table.status == "done").sum() >= 2
    planned, _ = start_farm("plan", *job, "--json").communicate(timeout=60)
    assert json.loads(planned)["estimate_of_the_others"]["seconds"] > 0  # as measured until then


@pytest.mark.parametrize(
    ("how", "changes"),
    [("--workers=1", ["steps=60"]), ("--inline", ["steps=6", "width=256", "height=256"])],
)
def test_interrupted_again_and_again_it_ends_in_order(start_farm, workspace, how, changes):
    """Also while a batch is computed that takes long."""
    process = start_farm("run", "small.yaml", how, *(part for one in changes for part in ("--set", one)))
    wait_for_lines(workspace, process, 1)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.15)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "small: interrupted; " in err, err
    assert "Traceback" not in err and "Exception" not in err, err
    assert (workspace / "results" / "small" / "index.csv").is_file()


def test_interrupted_while_ray_starts_it_ends_in_order(start_farm, workspace):
    """Once its first process is there and before its workers are."""
    process = start_farm("run", "small.yaml", "--workers", "2")
    while not any("gcs_server" in title(one) for one in psutil.Process(process.pid).children(recursive=True)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "small: interrupted; 0 of 24 cells kept" in err, err
    assert "Traceback" not in err and f"page:  {workspace}" in out
    wait_until_gone(family)


def test_workers_that_are_killed_do_not_end_the_run(start_farm, workspace):
    process = start_farm("run", "small.yaml", "--workers", "2")
    wait_for_lines(workspace, process, 2)
    workers = ray_workers(process)
    assert workers
    for worker in workers:  # all of them: one may be without work, and nothing would be lost with it
        worker.kill()
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "replaced" in err
    check_whole(workspace)
