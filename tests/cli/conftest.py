import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from farm.cli import main

JOB = """\
name: small
model: tiny-cats
prompt: a ginger cat on a blue background
width: 64
height: 64
seed: 7
steps: 3
sweep:
  cfg_scale: [1, 5]
  sampler: [Euler a, LMS]
plugins:
  sharpness: {}
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def workspace(tmp_path, tiny_model, monkeypatch):
    shutil.copytree(tiny_model, tmp_path / "models" / "Stable-diffusion" / "tiny-cats")
    (tmp_path / "small.yaml").write_text(JOB, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def farm(workspace, monkeypatch, capfd):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["farm", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capfd.readouterr()
        return Said(left.value.code or 0, said.out, said.err)

    return call


@pytest.fixture
def start_farm(workspace):
    """Starts the command in a process group of its own, as a shell does."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "farm", *map(str, arguments)],
            cwd=workspace,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def journal(workspace: Path, job: str = "small") -> list[str]:
    path = workspace / "results" / job / "journal.jsonl"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
