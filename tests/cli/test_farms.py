from pathlib import Path

import pytest

from farm.cli.farms import open_farm
from farm.cluster.crew import COMPILING, USUAL


def test_where_ray_is_not_installed_a_run_says_what_does_without(farm, workspace, monkeypatch):
    monkeypatch.setattr("farm.cli.farms.find_spec", lambda name: None)
    said = farm("run", "small.yaml")
    assert said.code == 1 and "farm: Ray is not installed here; --inline renders without it\n" in said.err
    assert farm("run", "small.yaml", "--inline").code == 0
    said = farm("run", "small.yaml")  # which has nothing left to do
    assert said.code == 0 and "starting the workers" not in said.err


@pytest.mark.parametrize(("compiled", "patience"), [(False, USUAL), (True, COMPILING)])
def test_workers_that_compile_are_given_more_time(compiled, patience):
    opened = open_farm({"m": Path()}, (), False, None, None, {"compiled": compiled})
    assert opened._patience is patience
