"""The coordinator's clockwork: a crew that answers by script, in time that only passes while it waits."""

from collections import deque

import pytest

from farm.cell import Outcome
from farm.cluster.coordinator import Notice, render
from farm.cluster.crew import Patience, Reply
from farm.cluster.worker import Report
from farm.errors import FarmError
from tests.cluster.painter import cells

PATIENCE = Patience(starting=50, loading=90, stepping=10, deserted=200)


class Script:
    """Each life of a worker follows the next word of its script: works, silent, dies, stuck, or slow.

    The last word counts for all lives to come. Who works finishes one cell a second; who is stuck starts
    and then answers without any progress; who is slow takes 60 s for the first cell of each life.
    """

    def __init__(self, **scripts):
        self.scripts = {name: deque(words.split()) for name, words in scripts.items()}
        self.names = tuple(scripts)
        self.lives = dict.fromkeys(scripts, 0)
        self.now = 0.0
        self.running = {}
        self.calls = {}
        self.in_hand = {name: deque() for name in scripts}
        self.progress = dict.fromkeys(scripts, 0)
        self.started = {}
        self.most_held = 0

    def clock(self):
        return self.now

    def is_running(self, name):
        return name in self.running

    def is_called(self, name):
        return name in self.calls

    def start(self, name):
        words = self.scripts[name]
        self.running[name] = words.popleft() if len(words) > 1 else words[0]
        self.lives[name] += 1
        self.progress[name] = 0
        self.in_hand[name].clear()
        self.started[name] = self.now

    def call(self, name, given, more):
        assert name in self.running and name not in self.calls
        self.in_hand[name].extend(given)
        self.calls[name] = more
        self.most_held = max(self.most_held, len(self.in_hand[name]))

    def kill(self, name):
        self.running.pop(name, None)
        self.calls.pop(name, None)

    def wait(self, timeout):
        self.now += timeout
        for name in list(self.calls):
            if name in self.calls and (reply := self.answer(name, self.running[name])):
                del self.calls[name]
                yield reply

    def answer(self, name, word):
        if word == "silent":
            return None
        if word == "dies":
            return Reply(name, None, "it died")
        loading = word == "slow" and self.progress[name] == 1 and self.in_hand[name]
        if loading and self.now - self.started[name] < 60:
            return Reply(name, Report((), 0, 1))
        if self.progress[name] == 0 or word != "stuck":
            self.progress[name] += 1
        done = ()
        if self.in_hand[name] and word != "stuck":
            done = (Outcome(self.in_hand[name].popleft(), "done", b"png", worker=name),)
        return Reply(name, Report(done, 4 - len(self.in_hand[name]), self.progress[name]))


def run(script, count=20, patience=PATIENCE):
    events = list(render(cells(["cat"] * count), script, patience, script.clock))
    outcomes = [event for event in events if isinstance(event, Outcome)]
    assert sorted(outcome.cell.number for outcome in outcomes) == list(range(1, count + 1))
    return outcomes, [event for event in events if isinstance(event, Notice)]


def test_workers_share_the_work_and_idle_ones_stay():
    script = Script(a="works", b="works")
    outcomes, notices = run(script)
    assert not notices
    assert {outcome.worker for outcome in outcomes} == {"a", "b"}
    assert script.most_held <= 4
    assert script.lives == {"a": 1, "b": 1}
    run(script)
    assert script.lives == {"a": 1, "b": 1}


def test_a_worker_that_stops_making_progress_is_replaced():
    script = Script(a="stuck works", b="works")
    _, (notice,) = run(script)
    assert notice.worker == "a"
    assert notice.text.startswith("no sign of life for 90 s while loading; replaced")
    assert 0 < notice.put_back <= 4
    assert script.lives["a"] == 2


def test_loading_takes_its_time():
    script = Script(a="slow")
    _, notices = run(script)
    assert not notices
    assert script.now > 60 > PATIENCE.stepping


def test_one_that_cannot_start_does_not_keep_the_others_from_finishing():
    script = Script(a="silent", b="works")
    _, notices = run(script, count=500)
    assert [notice.text for notice in notices] == [
        "no sign of life for 50 s while starting; replaced",
        "no sign of life for 50 s while starting; replaced",
        "no sign of life for 50 s while starting; set aside",
    ]
    assert script.lives["a"] == 3


def test_lives_that_end_at_once_are_given_more_and_more_time():
    script = Script(a="dies")
    with pytest.raises(
        FarmError, match="every worker died again and again without finishing anything: a: it died"
    ):
        run(script)
    assert script.lives["a"] == 3
    assert script.now >= 1 + 3


def test_a_farm_that_nobody_comes_to_is_closed():
    script = Script(a="silent", b="silent")
    with pytest.raises(FarmError, match="no worker could be had for 30 s"):
        run(script, patience=Patience(starting=50, deserted=30))


def test_time_that_passes_elsewhere_is_not_held_against_the_workers():
    script = Script(a="works", b="works")
    for event in render(cells(["cat"] * 20), script, PATIENCE, script.clock):
        assert isinstance(event, Outcome)
        script.now += 1000.0


def test_closing_kills_who_is_busy_and_lets_others_start():
    script = Script(a="works", b="silent works")
    events = render(cells(["cat"] * 20), script, PATIENCE, script.clock)
    next(events)
    events.close()
    assert script.running == {"b": "silent"}
    script.running["b"] = "works"
    outcomes, _ = run(script)
    assert {outcome.worker for outcome in outcomes} == {"a", "b"}
    assert script.lives == {"a": 2, "b": 1}
