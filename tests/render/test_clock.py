"""Whose time it is: on a device that has a queue of its own, as cards have, and by the host's clock."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from farm.questions import Draw
from farm.render.capacity import Capacity
from farm.render.clock import Clock, HostMark
from farm.render.engine import Engine
from farm.render.requests import Coroutine, Decode, Request
from farm.work import Kind, Work
from tests.render.arithmetic import Doubling, finish, last, shared, steps
from tests.render.test_engine import Coming

OTHER = Kind("compile", "m")


class Device:
    """Works through a queue, as long as it is told for each call, while the host's time stands still."""

    def __init__(self) -> None:
        self.now = self.busy_until = 0.0

    def ask(self, seconds: float) -> None:
        self.busy_until = max(self.busy_until, self.now) + seconds

    def mark(self) -> "DeviceMark":
        self.busy_until = max(self.busy_until, self.now)
        return DeviceMark(self, self.busy_until)


class DeviceMark:
    def __init__(self, device: Device, at: float) -> None:
        self.device, self.at = device, at

    @property
    def is_there(self) -> bool:
        return self.device.now >= self.at

    def since(self, earlier: "DeviceMark") -> float:
        return self.at - earlier.at


class Booked:
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.apart: defaultdict[Kind, list[float]] = defaultdict(list)

    def __call__(self, seconds: float, apart: Mapping[Kind, Sequence[float]]) -> None:
        self.seconds.append(seconds)
        for kind, parts in apart.items():
            self.apart[kind] += parts


def test_calls_are_booked_when_the_device_has_passed_them() -> None:
    device, booked = Device(), Booked()
    clock = Clock(device.mark)
    for seconds in (5.0, 2.0):
        with clock.call(booked):
            device.ask(seconds)
    assert booked.seconds == []
    device.now = 6
    clock.settle()
    assert booked.seconds == [5]
    device.now = 10  # it has nothing to do from 7 on
    with clock.call(booked):
        for seconds in (0.25, 0.5):
            with clock.apart(OTHER):
                device.ask(seconds)
        device.ask(1)
    assert booked.seconds == [5, 2]
    device.now = 20
    clock.settle()
    assert booked.seconds == [5, 2, 1.75] and booked.apart == {OTHER: [0.25, 0.5]}


def test_a_call_that_fails_is_booked_too() -> None:
    device, booked = Device(), Booked()
    clock = Clock(device.mark)
    with pytest.raises(ZeroDivisionError), clock.call(booked):
        device.ask(0)
        _ = 1 / 0
    assert booked.seconds == [0]


def test_of_a_wait_counts_what_the_device_had_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    device, waits = Device(), list[float]()
    monkeypatch.setattr("time.perf_counter", lambda: device.now)
    clock = Clock(device.mark)
    with clock.wait(waits.append):
        device.now += 3
    assert waits == [3]
    with clock.call(Booked()):
        device.ask(4)
    with clock.wait(waits.append):
        device.now += 3  # it works
    with clock.wait(waits.append):
        device.now += 3  # a second of work is left
    device.now += 5
    with clock.wait(waits.append):
        device.now += 1
    assert waits == [3, 0, 2, 1]


def test_the_hosts_clock_knows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 3.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    booked = Booked()
    with Clock(HostMark).call(booked):
        pass
    assert booked.seconds == [2.5]


class OnDevice(Doubling):
    """Its calls return at once; what is decoded comes when the device is done with it."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def run(self, requests: list[Request]) -> list[Any]:
        answers = super().run(requests)
        is_last = isinstance(requests[0], Decode)
        self.device.ask(0.5 if is_last else len(requests))
        return [Arriving(self.device, answer) for answer in answers] if is_last else answers


class Arriving(Coming):
    """There once the device has done all that it was asked until now."""

    def __init__(self, device: Device, answer: float) -> None:
        super().__init__(answer, 0)
        self.device, self.at = device, device.busy_until

    @property
    def is_there(self) -> bool:
        return self.device.now >= self.at

    def get(self) -> float:
        self.device.now = max(self.device.now, self.at)
        return self.answer


def drawing(value: float, count: int) -> Coroutine:
    return (yield last((yield from steps(value, count))))


def test_cells_and_kinds_get_the_devices_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr("time.perf_counter", lambda: device.now)
    engine = Engine(OnDevice(device), Capacity(torch.device("cpu"), 2), clock=Clock(device.mark))
    for name, count in (("short", 1), ("long", 3)):
        engine.submit(name, drawing(1, count))
    ended, work = {}, Work()
    while engine.in_flight:
        ended |= {one.name: one for one in engine.step()}
        work += engine.take_work()
    work += engine.take_work()
    assert {name: one.seconds for name, one in ended.items()} == {"short": 1.5, "long": 3.5}
    assert (work.of("predict").seconds, work.of("decode").seconds) == (4.0, 1.0)
    assert (work.of("predict").calls, work.of("predict").rows, work.of("decode").calls) == (3, 4, 2)
    assert work.waiting == 0 and work.between == pytest.approx(0)


def seconds_of(engine: Engine) -> dict[Any, float]:
    return {name: one.seconds for name, one in finish(engine).items()}


def test_what_is_shared_is_paid_in_equal_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its seconds become known only after it has ended."""
    device = Device()
    monkeypatch.setattr("time.perf_counter", lambda: device.now)

    def cell() -> Coroutine:
        value = yield shared("text")
        return (yield last(value))

    engine = Engine(OnDevice(device), Capacity(torch.device("cpu"), 2), clock=Clock(device.mark))
    for name in "ab":
        engine.submit(name, cell())
    assert seconds_of(engine) == {"a": 0.75, "b": 0.75}


def test_tries_that_died_are_paid_too(monkeypatch: pytest.MonkeyPatch) -> None:
    device, tries = Device(), list[int]()
    monkeypatch.setattr("time.perf_counter", lambda: device.now)

    def cell() -> Coroutine:
        value = yield from steps(1, 3)
        tries.append(1)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return (yield last(value))

    engine = Engine(OnDevice(device), Capacity(torch.device("cpu"), 2), clock=Clock(device.mark))
    engine.submit("cell", cell(), cell)
    assert seconds_of(engine) == {"cell": 6.5}


def test_what_is_waited_for_counts_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that takes ten seconds to draw, of which the device works for one."""
    device = Device()
    monkeypatch.setattr("time.perf_counter", lambda: device.now)

    class Slow:
        def draw(self, *_: Any) -> float:
            device.now += 10
            return 1.0

    def cell() -> Coroutine:
        value = yield Draw(Slow())
        return (yield from steps(value, 1))

    engine = Engine(OnDevice(device), Capacity(torch.device("cpu"), 1), clock=Clock(device.mark))
    engine.submit("cell", cell())
    assert finish(engine)["cell"].result == 2.0
    device.now += 1
    work = engine.take_work()
    assert (work.waiting, work.of("predict").seconds) == (10, 1)
