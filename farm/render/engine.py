"""The loop: gathers the requests of all coroutines in flight and has them answered in batches."""

import time
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import torch

from farm.questions import Draw
from farm.render.capacity import Capacity, is_out_of_memory
from farm.render.draws import Draws
from farm.render.queue import Queue, Row
from farm.render.requests import Coroutine, Request, Share
from farm.render.shares import Shares, apart
from farm.render.task import Task

BATCHES_WAITING = 4
"""Rows and draws that wait, at most, as a multiple of a batch; more only cost memory."""

BATCHES_IN_FLIGHT = 8
"""Coroutines in flight, at most, as a multiple of a batch; so many may wait for shared recipes."""

SHARE_BUDGET = 128 * 2**20
"""Bytes of shared answers that are kept."""


class Runner(Protocol):
    """Answers requests of one batch key."""

    def run(self, requests: list[Request]) -> list[Any]:
        """One answer for each request, or an exception in its place."""
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A coroutine that ended.

    Attributes:
        name: as it was submitted.
        result: what it returned; None if it failed.
        error: what it raised; None if it returned.
        seconds: its share of the device's time.
    """

    name: Hashable
    result: Any
    error: Exception | None
    seconds: float


@dataclass(slots=True)
class Counters:
    """What the engine has done so far."""

    batches: int = 0
    rows: int = 0
    predicted_rows: int = 0
    shared_answers: int = 0


class Engine:
    """Runs coroutines together on one device.

    An exception ends the coroutine it belongs to and no other; all answers of a batch exist before any
    coroutine advances; coroutines that wait for a shared recipe hold no room in a batch. Noise is drawn in
    threads while the device works; the order of a source's numbers does not depend on them.

    Args:
        runner: answers the requests.
        capacity: of its batches.
        share_budget: bytes of shared answers that are kept.
        draws: draws the noise; in threads of its own if not given.
    """

    def __init__(
        self,
        runner: Runner,
        capacity: Capacity,
        share_budget: int = SHARE_BUDGET,
        draws: Draws | None = None,
    ) -> None:
        self.counters = Counters()
        self._runner = runner
        self._capacity = capacity
        self._queue = Queue()
        self._shares = Shares(share_budget)
        self._draws = Draws() if draws is None else draws
        self._orders = count()
        self._submitted: dict[Hashable, Coroutine] = {}
        self._running: dict[Hashable, Task] = {}
        self._ready: deque[Task] = deque()
        self._finished: list[Finished] = []

    def submit(self, name: Hashable, coroutine: Coroutine) -> None:
        """Lets a coroutine wait for its turn.

        Raises:
            ValueError: if a coroutine of this name is in flight.
        """
        if name in self._submitted or name in self._running:
            raise ValueError(f"a coroutine named {name!r} is in flight already")
        self._submitted[name] = coroutine

    def cancel(self, name: Hashable) -> None:
        """Ends a coroutine without a result; shared recipes that only it waited for end with it."""
        if (waiting := self._submitted.pop(name, None)) is not None:
            waiting.close()
        elif (task := self._running.pop(name, None)) is not None:
            self._drop(task)

    @property
    def in_flight(self) -> int:
        """Coroutines submitted and not finished."""
        return len(self._submitted) + len(self._running)

    @property
    def waiting(self) -> int:
        """Coroutines submitted that have not begun."""
        return len(self._submitted)

    def step(self) -> list[Finished]:
        """Answers one batch and advances whoever waited for it; returns the coroutines that ended by it."""
        with torch.inference_mode():
            if self._is_full():
                self._hand_out(frozenset())
            self._admit()
            # so that a small run is composed the same each time, whatever the threads do
            while (missed := self._draws.holding_up) and not self._is_full():
                self._hand_out(missed)
            if rows := self._queue.take(self._capacity.limit):
                self._answer(rows)
            finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """Ends what is in flight, and the threads."""
        for name in (*self._submitted, *self._running):
            self.cancel(name)
        self._draws.close()

    def _admit(self) -> None:
        while self._submitted and self._has_room():
            name = next(iter(self._submitted))
            task = Task(name, self._submitted.pop(name), next(self._orders))
            self._running[name] = task
            self._ready.append(task)
            self._advance_ready()

    def _is_full(self) -> bool:
        return self._queue.fullness(self._capacity.limit) >= 1

    def _has_room(self) -> bool:
        largest = self._capacity.largest
        return (
            not self._is_full()
            and len(self._queue) + len(self._draws) < BATCHES_WAITING * largest
            and len(self._running) < BATCHES_IN_FLIGHT * largest
        )

    def _answer(self, rows: list[Row]) -> None:
        started = time.perf_counter()
        try:
            answers = self._runner.run([row.request for row in rows])
        except Exception as error:
            if is_out_of_memory(error):
                self._capacity.lower(rows[0].request.batch_key, len(rows) - len(rows) // 2)
            if len(rows) > 1:
                self._queue.retry_in_halves(rows)
                return
            answers = [error]
        self._count(rows, time.perf_counter() - started)
        for row, answer in zip(rows, answers, strict=True):
            self._deliver(row.task, row.slot, answer)
        self._advance_ready()

    def _count(self, rows: list[Row], seconds: float) -> None:
        self.counters.batches += 1
        self.counters.rows += len(rows)
        self.counters.predicted_rows += 0 if rows[0].request.prepares else len(rows)
        for row in rows:
            row.task.seconds += seconds / len(rows)

    def _hand_out(self, missed: frozenset[int]) -> None:
        """Passes on what has been drawn by now, and waits for these draws before."""
        for each in self._draws.wait_for(missed):
            self._deliver(*each)
        self._advance_ready()

    def _deliver(self, task: Task, slot: int, answer: Any) -> None:
        if task.accept(slot, answer):
            self._ready.append(task)

    def _advance_ready(self) -> None:
        while self._ready:
            self._advance(self._ready.popleft())

    def _advance(self, task: Task) -> None:
        try:
            requests = task.resume()
        except StopIteration as end:
            self._end(task, end.value, None)
        except Exception as error:
            self._end(task, None, error)
        else:
            if not requests:
                self._ready.append(task)
            for slot, request in enumerate(requests):
                self._ask(task, slot, request)

    def _ask(self, task: Task, slot: int, request: Request | Draw | Share) -> None:
        try:
            if isinstance(request, Draw):
                self._draws.ask(task, slot, request)
            elif isinstance(request, Share):
                self._ask_share(task, slot, request)
            elif isinstance(request, Request):
                self._queue.add(task, slot, request)
            else:
                raise TypeError(f"a coroutine asked for {type(request).__name__}, which is no request")
        except Exception as error:  # of the request, so the asker's own
            self._deliver(task, slot, error)

    def _ask_share(self, task: Task, slot: int, request: Share) -> None:
        answer, is_there = self._shares.answer(request.key)
        if is_there:
            self.counters.shared_answers += 1
            self._deliver(task, slot, answer)
            return
        started = self._shares.wait(task, slot, request)
        if started is None:
            self.counters.shared_answers += 1
        else:
            self._ready.appendleft(started)

    def _end(self, task: Task, result: Any, error: Exception | None) -> None:
        if task.is_shared:
            self._settle(task, apart(result), error)
        else:
            del self._running[task.name]
            self._finished.append(Finished(task.name, result, error, task.seconds))

    def _settle(self, task: Task, result: Any, error: Exception | None) -> None:
        if error is None:
            self._shares.keep(task.name, result)
        waiters = self._shares.settle(task.name)
        for waiter, slot in waiters:
            waiter.seconds += task.seconds / len(waiters)
            self._deliver(waiter, slot, result if error is None else error)

    def _drop(self, task: Task) -> None:
        self._queue.discard(task)
        self._draws.discard(task)
        task.coroutine.close()
        for orphan in self._orphans(task):
            self._drop(orphan)

    def _orphans(self, task: Task) -> Iterator[Task]:
        for key in tuple(task.waits_for):
            if (orphan := self._shares.leave(key, task)) is not None:
                yield orphan
