import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A virtual environment with the wheel and, borrowed from here, what it depends on."""
    folder = tmp_path_factory.mktemp("elsewhere")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    [wheel] = folder.glob("*.whl")
    subprocess.run([scripts / "python", "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    # Only the folder itself is added: the .pth of the editable install in it is not read.
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder, scripts


def run(elsewhere, folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(
        [elsewhere[1] / "farm", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    return answer


def test_the_wheel_brings_plugins_jobs_and_the_model(elsewhere):
    folder = elsewhere[0]
    run(elsewhere, folder, "init", "studio")
    studio = folder / "studio"
    run(elsewhere, studio, "run", "jobs/demo.yaml", "--inline", "--set", "steps=3", "--set", "cfg_scale=1,6")
    table = pd.read_csv(studio / "results" / "demo" / "index.csv")
    assert list(table.status) == ["done"] * 12
    assert (table.sharpness > 0).all()
    assert "5 of 75 tokens" in run(elsewhere, folder, "prompt", "a photo of a cat").stdout  # by CLIP's own
    where = run(elsewhere, folder, "models", "--json").stdout
    assert "shipped" in where and str(ROOT) not in where
    for job, few in {"lora": "lora_weight=0,1", "embedding": "seed=1", "hypernetwork": "steps=3"}.items():
        run(elsewhere, studio, "run", f"jobs/{job}.yaml", "--inline", "--set", "steps=3", "--set", few)
        assert set(pd.read_csv(studio / "results" / job / "index.csv").status) == {"done"}
