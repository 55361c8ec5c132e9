import subprocess
import sys
import threading

import pytest

from farm.cell import Outcome
from farm.cluster.coordinator import Done, Notice
from farm.cluster.inline import InlineFarm
from farm.errors import FarmError
from farm.work import total
from tests.cluster.painter import MODEL, Painter, begun, cells


@pytest.fixture
def farm(tmp_path):
    with InlineFarm({MODEL: tmp_path}, (), "cpu", Painter) as farm:
        yield farm


def test_every_cell_comes_back_once_whatever_the_renderer_does(farm, tmp_path):
    prompts = ["cat"] * 20 + ["bad", "cat", "boom"] + ["cat"] * 10
    wanted = cells(prompts)
    events = list(farm.render(wanted))
    outcomes = outcomes_of(events)
    assert sorted(outcome.cell.number for outcome in outcomes) == [cell.number for cell in wanted]
    failed = {
        outcome.cell.settings.prompt: outcome.error for outcome in outcomes if outcome.status == "failed"
    }
    assert failed.keys() == {"bad", "boom"}
    assert failed["boom"].startswith("the worker died 3 times while rendering this cell alone")
    assert "ZeroDivisionError: the network is gone" in failed["boom"]
    put_back = sum(event.put_back for event in events if isinstance(event, Notice))
    assert len(begun(tmp_path)) <= len(wanted) + put_back


def test_what_a_renderer_says_is_told_once(farm):
    events = list(farm.render(cells(["cat", "talk", "cat"])))
    assert [event for event in events if isinstance(event, Notice)] == [
        Notice("inline", "cell 2 says something")
    ]


def test_twins_are_rendered_once_and_both_told(farm, tmp_path):
    (cell,) = cells(["cat"])
    twin = type(cell)(2, (2,), cell.settings, key=cell.key, model_hash=cell.model_hash)
    assert [outcome.cell.number for outcome in outcomes_of(farm.render([cell, twin]))] == [1, 2]
    assert begun(tmp_path) == [1]


def test_a_farm_renders_one_job_after_the_other(farm):
    for _ in range(2):
        assert len(outcomes_of(farm.render(cells(["cat"] * 5)))) == 5


def test_all_that_was_done_is_told_before_the_end(farm):
    """The painter counts its steps: four cells at once, two steps each."""
    for _ in range(2):
        events = list(farm.render(cells(["cat"] * 12)))
        work = total(event.work for event in events if isinstance(event, Done))
        assert 6 <= work.of("predict").rows <= 24


def outcomes_of(events):
    return [event for event in events if isinstance(event, Outcome)]


def test_nothing_to_render_is_nothing_to_do(farm):
    assert list(farm.render([])) == []


def test_closing_the_generator_ends_the_threads_and_keeps_the_farm_usable(farm):
    events = farm.render(cells(["cat"] * 50))
    next(events)
    events.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("inline")]
    assert len(outcomes_of(farm.render(cells(["cat"] * 3)))) == 3


@pytest.mark.slow
def test_a_renderer_that_never_works_ends_the_run_with_its_reason(tmp_path):
    def broken(checkpoints, device):
        raise RuntimeError("no such device")

    with (
        InlineFarm({MODEL: tmp_path}, (), "cpu", broken) as farm,
        pytest.raises(FarmError, match="no such device"),
    ):
        list(farm.render(cells(["cat"])))


@pytest.mark.slow
def test_without_ray():
    code = "import sys, farm.cluster.inline; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
