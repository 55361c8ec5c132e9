import io
import threading
import time
from dataclasses import replace

import pytest
from PIL import Image

from farm.cell import PluginUse
from farm.cluster.worker import OUTBOX, REPORTED_AT_ONCE, Worker
from tests.cluster.painter import MODEL, Painter, begun, cells, colour

BRIGHT = """
from farm.hooks import hookimpl

__version__ = "1"

@hookimpl
def score_image(image, cell, settings):
    if cell.settings.seed == 2:
        raise OverflowError("too bright")
    return {"bright": float(image.getpixel((0, 0))[2])}
"""


class Trickle(Painter):
    """Wants everything at once, and finishes four cells a step."""

    batch = 1000
    finished = 0

    def step(self):
        numbers = list(self.left)[:4]
        type(self).finished += len(numbers)
        return [self.paint(number) for number in numbers]


@pytest.fixture
def make_worker(tmp_path):
    made = []

    def make(renderer=Painter):
        made.append(Worker("w", {MODEL: tmp_path}, (tmp_path,), "cpu", renderer))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def outcomes_of(worker, wanted, hand_in=(), timeout=30.0):
    """All outcomes and the last report, once there are as many as wanted or something was fatal."""
    outcomes, deadline = [], time.monotonic() + timeout
    report = worker.exchange(hand_in, 0.2, more=False)
    while True:
        outcomes.extend(report.outcomes)
        if len(outcomes) >= wanted or report.fatal:
            return outcomes, report
        assert time.monotonic() < deadline
        report = worker.exchange((), 0.2, more=False)


def test_pictures_come_back_as_png_and_failures_with_their_reason(make_worker):
    wanted = cells(["cat", "bad", "dog"])
    outcomes, _ = outcomes_of(make_worker(), 3, wanted)
    found = {outcome.cell.number: outcome for outcome in outcomes}
    assert [found[number].status for number in (1, 2, 3)] == ["done", "failed", "done"]
    assert found[2].error == "NaN at step 3"
    for cell in (wanted[0], wanted[2]):
        image = Image.open(io.BytesIO(found[cell.number].png))
        assert image.getpixel((4, 4)) == colour(cell)
        assert "Steps: 2" in image.info["parameters"]
        assert found[cell.number].worker == "w"


def test_plugins_run_beside_the_renderer_and_fail_their_cell_only(make_worker, tmp_path):
    (tmp_path / "bright.py").write_text(BRIGHT)
    use = PluginUse("bright", "1", "{}", touches_pixels=False)
    outcomes, _ = outcomes_of(make_worker(), 2, [replace(cell, plugins=(use,)) for cell in cells(["a", "b"])])
    good, bad = sorted(outcomes, key=lambda outcome: outcome.cell.number)
    assert (good.status, dict(good.columns)) == ("done", {"bright": 77.0})
    assert bad.status == "failed"
    assert "bright" in bad.error and "too bright" in bad.error


def test_an_exception_of_the_renderer_is_fatal_and_what_was_done_before_is_told(make_worker):
    first, second = cells(["cat", "boom"])
    second = replace(second, settings=replace(second.settings, steps=5))
    outcomes, report = outcomes_of(make_worker(), 2, [first, second])
    assert [outcome.cell.key for outcome in outcomes] == [first.key]
    assert outcomes[0].cell.evaluations == 2  # as the renderer counted
    assert report.fatal == "ZeroDivisionError: the network is gone"


def test_a_renderer_that_cannot_be_made_is_fatal(make_worker):
    def broken(checkpoints, device):
        raise RuntimeError(f"no {device}")

    assert make_worker(broken).exchange((), 30.0).fatal == "RuntimeError: no cpu"


def test_hunger_is_told_at_once_if_there_is_more_and_never_counts_cells_twice(make_worker):
    worker = make_worker()
    assert worker.exchange((), 30.0).hungry == Painter.batch
    report = worker.exchange(cells(["cat"] * 3, steps=10_000), 30.0)
    assert (report.hungry, report.outcomes) == (1, ())
    before = report.progress
    assert worker.exchange((), 0.2, more=False).progress > before  # a heartbeat


def test_the_device_rests_while_nobody_fetches_its_pictures(make_worker):
    worker = make_worker(Trickle)
    worker.exchange((), 30.0)
    handed_in = worker.exchange(cells(["cat"] * 100), 0.0)
    time.sleep(1.0)
    assert OUTBOX <= Trickle.finished + len(handed_in.outcomes) <= OUTBOX + 4
    report = worker.exchange((), 5.0)
    assert len(report.outcomes) == REPORTED_AT_ONCE
    outcomes, _ = outcomes_of(worker, 100 - len(report.outcomes))
    assert {outcome.cell.number for outcome in (*report.outcomes, *outcomes)} == set(range(1, 101))


def test_closing_ends_all_threads(tmp_path):
    worker = Worker("closing", {MODEL: tmp_path}, (), "cpu", Painter)
    outcomes_of(worker, 1, cells(["cat"] * (OUTBOX + 9)))
    worker.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("closing")]


def test_a_cell_whose_plugin_is_another_version_here_is_not_even_rendered(make_worker, tmp_path):
    (tmp_path / "bright.py").write_text(BRIGHT)
    stale = PluginUse("bright", "2", "{}", touches_pixels=False)
    one, other = cells(["a", "b"])
    found, _ = outcomes_of(make_worker(), 2, [replace(one, plugins=(stale,)), other])
    failed, done = sorted(found, key=lambda outcome: outcome.cell.number)
    assert (failed.status, done.status) == ("failed", "done")
    assert failed.error == "plugin 'bright' is version 1 on this machine, but the job was planned with 2"
    assert begun(tmp_path) == [2]


def test_a_worker_goes_on_after_cells_that_all_failed_at_once(make_worker, tmp_path):
    worker = make_worker()
    missing = PluginUse("nowhere", "1", "{}", touches_pixels=False)
    first, second = cells(["a", "b"])
    [failed], report = outcomes_of(worker, 1, [replace(first, plugins=(missing,))])
    assert failed.error == "plugin 'nowhere' is not on this machine" and not report.fatal
    [done], _ = outcomes_of(worker, 1, [second])
    assert done.status == "done"
