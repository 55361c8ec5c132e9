"""The loop: gathers the requests of all coroutines in flight and has them answered in batches."""

from collections import deque
from collections.abc import Hashable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from farm.questions import Draw
from farm.render.accounts import Accounts
from farm.render.admission import Admission, Again
from farm.render.capacity import Capacity
from farm.render.clock import Clock
from farm.render.draws import Draws
from farm.render.queue import Queue, Row
from farm.render.requests import Coroutine, Request, Share
from farm.render.shares import Shares, apart
from farm.render.task import Task
from farm.render.transfers import Later
from farm.weights.device_errors import is_fatal, is_out_of_memory
from farm.work import Work

BATCHES_WAITING = 4
"""Rows and draws that wait, at most, as a multiple of a batch; more only cost memory."""

BATCHES_IN_FLIGHT = 8
"""Coroutines in flight, at most, as a multiple of a batch; so many may wait for shared recipes."""

SHARE_BUDGET = 128 * 2**20
"""Bytes of shared answers that are kept."""


class Runner(Protocol):
    """Answers requests of one batch key."""

    def run(self, requests: list[Request]) -> list[Any]:
        """One answer for each request, or an exception or a `Later` in its place."""
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


class Engine:
    """Runs coroutines together on one device.

    An exception ends the coroutine it belongs to and no other; all answers of a batch exist before any
    coroutine advances; coroutines that wait for a shared recipe hold no room in a batch. Noise is drawn in
    threads while the device works; the order of a source's numbers does not depend on them. Too little
    memory makes batches smaller; a coroutine that dies of it begins again with fewer beside it.

    Args:
        runner: answers the requests.
        capacity: of its batches.
        share_budget: bytes of shared answers that are kept.
        draws: draws the noise; in threads of its own if not given.
        clock: tells how long the runner takes; the host's if not given.
    """

    def __init__(
        self,
        runner: Runner,
        capacity: Capacity,
        share_budget: int = SHARE_BUDGET,
        draws: Draws | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.accounts = Accounts(Clock() if clock is None else clock)
        self._runner = runner
        self._capacity = capacity
        self._queue = Queue()
        self._shares = Shares(share_budget)
        self._draws = Draws() if draws is None else draws
        self._admission = Admission()
        self._ready: deque[Task] = deque()
        self._late: deque[tuple[Task, int, Later]] = deque()
        self._finished: list[Finished] = []

    def submit(self, name: Hashable, coroutine: Coroutine, again: Again | None = None) -> None:
        """Lets a coroutine wait for its turn.

        Args:
            name: of the coroutine, in what `step` returns.
            coroutine: to run.
            again: makes it anew, if it should be tried again when it dies for want of memory.

        Raises:
            ValueError: if a coroutine of this name is in flight.
        """
        if name in self._admission:
            raise ValueError(f"a coroutine named {name!r} is in flight already")
        self._admission.add(name, coroutine, again)

    def cancel(self, name: Hashable) -> None:
        """Ends a coroutine without a result; shared recipes that only it waited for end with it.

        Raises:
            BaseException: the first that one of them raised instead of ending; all are dropped by then.
        """
        self._withdraw((name,))

    @property
    def in_flight(self) -> int:
        """Coroutines submitted and not finished."""
        return self._admission.waiting + len(self._admission.running)

    @property
    def waiting(self) -> int:
        """Coroutines submitted that have not begun."""
        return self._admission.waiting

    def step(self) -> list[Finished]:
        """Answers one batch and advances whoever waited for it; returns the coroutines that ended by it.

        Raises:
            torch.AcceleratorError: the device can do nothing more for this process.
        """
        with torch.inference_mode(), self.accounts.stepping():
            self._deliver_late()
            if self._is_full():
                self._hand_out(frozenset())
            self._admit()
            # so that a small run is composed the same each time, whatever the threads do
            while (missed := self._draws.holding_up) and not self._is_full():
                self._hand_out(missed)
            if rows := self._queue.take(self._capacity.limit):
                self._answer(rows)
            elif self._late:
                self._deliver_late(waits=True)
            finished, self._finished = self._finished, []
        return finished

    def take_work(self) -> Work:
        """What was done since this was last asked."""
        return self.accounts.take()

    def close(self) -> None:
        """Ends what is in flight, and the threads.

        Raises:
            BaseException: the first that a coroutine raised instead of ending; all is closed by then.
        """
        with closing(self._draws):
            self._withdraw(self._admission.names)

    def _admit(self) -> None:
        most = BATCHES_IN_FLIGHT * self._capacity.largest
        while self._has_room() and (task := self._admission.begin(most)) is not None:
            self._ready.append(task)
            self._advance_ready()

    def _is_full(self) -> bool:
        return self._queue.fullness(self._capacity.limit) >= 1

    def _has_room(self) -> bool:
        most = BATCHES_WAITING * self._capacity.largest
        return len(self._queue) + len(self._draws) < most and not self._is_full()

    def _answer(self, rows: list[Row]) -> None:
        batch_key = rows[0].request.batch_key
        possible = self._capacity.limit(batch_key)
        try:
            with self.accounts.call(rows):
                answers = self._runner.run([row.request for row in rows])
        except Exception as error:
            if is_fatal(error):
                raise
            if is_out_of_memory(error):
                self._capacity.lower(batch_key, len(rows) - len(rows) // 2)
            if len(rows) > 1:
                self._queue.retry_in_halves(rows)
                return
            answers = [error]
        self.accounts.answered(rows, possible)
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, Later):
                self._late.append((row.task, row.slot, answer))
            else:
                self._deliver(row.task, row.slot, answer)
        self._advance_ready()

    def _hand_out(self, missed: frozenset[int]) -> None:
        """Passes on what has been drawn by now, and waits for these draws before."""
        with self.accounts.waiting():
            drawn = self._draws.wait_for(missed)
        for each in drawn:
            self._deliver(*each)
        self._advance_ready()

    def _deliver_late(self, waits: bool = False) -> None:
        """Passes on what has come from the device by now, in the order in which it was asked for.

        Args:
            waits: for the first of it.
        """
        while self._late and (waits or self._late[0][2].is_there):
            task, slot, later = self._late.popleft()
            answer, waits = later.get(), False
            self.accounts.clock.settle()  # the cell may end with it, and its seconds are known by now
            self._deliver(task, slot, answer)
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
            if is_fatal(error):  # it may show only at what is computed between two calls
                raise
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
            self.accounts.shared(request.is_row)
            self._deliver(task, slot, answer)
            return
        started = self._shares.wait(task, slot, request)
        if started is None:
            self.accounts.shared(request.is_row)
        else:
            self._ready.appendleft(started)

    def _end(self, task: Task, result: Any, error: Exception | None) -> None:
        if task.is_shared:
            self._settle(task, apart(result), error)
        elif error is not None and is_out_of_memory(error) and self._admission.begin_again(task):
            self.accounts.again += 1
            self._shares.forget()
        else:
            self._admission.end(task.name, well=error is None)
            self._finished.append(Finished(task.name, result, error, task.bill.seconds))

    def _settle(self, task: Task, result: Any, error: Exception | None) -> None:
        if error is None:
            self._shares.keep(task.name, result)
        waiters = self._shares.settle(task.name)
        for waiter, slot in waiters:
            waiter.bill.share(task.bill, 1 / len(waiters))
            self._deliver(waiter, slot, result if error is None else error)

    def _withdraw(self, names: Iterable[Hashable]) -> None:
        tasks = [self._admission.withdraw(name) for name in names]
        errors = [error for task in tasks if task for error in self._dropped(task)]
        if errors:
            raise errors[0]

    def _dropped(self, task: Task) -> list[BaseException]:
        """Forgets a task; returns what it and its orphans raised when they were closed."""
        self._queue.discard(task)
        self._draws.discard(task)
        self._late = deque(each for each in self._late if each[0] is not task)
        errors = task.close()
        for key in tuple(task.waits_for):
            if (orphan := self._shares.leave(key, task)) is not None:
                errors += self._dropped(orphan)
        return errors
