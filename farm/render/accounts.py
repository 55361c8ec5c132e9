"""The engine's book-keeping of what it did and how long that took."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from farm.render.clock import Clock
from farm.render.queue import Row
from farm.work import Kind, Tally, Work


@dataclass(slots=True)
class Accounts:
    """Counts; `work` tells.

    Attributes:
        clock: that tells how long the device takes.
        batches: that were answered.
        shared_answers: to shared recipes, whatever they were.
        shared_rows: of these, rows of the UNet.
        again: coroutines begun again.
    """

    clock: Clock
    batches: int = 0
    shared_answers: int = 0
    shared_rows: int = 0
    again: int = 0
    _tallies: defaultdict[Kind, Tally] = field(default_factory=lambda: defaultdict(Tally))
    _stepping: float = 0.0
    _running: float = 0.0
    _waiting: float = 0.0

    def work(self) -> Work:
        """All that was done so far, as far as its time is known."""
        self.clock.settle()
        between = self._stepping - self._running - self._waiting
        return Work(dict(self._tallies), self.shared_rows, self._waiting, between, self.again)

    def take(self) -> Work:
        """The same, and begins to count anew."""
        work = self.work()
        self.batches = self.shared_answers = self.shared_rows = self.again = 0
        self._stepping = self._running = self._waiting = 0.0
        self._tallies.clear()
        return work

    def call(self, rows: Sequence[Row]) -> AbstractContextManager[None]:
        """Around the call of a batch: its time is the kind's, and its rows' in equal parts."""
        kind, bills = rows[0].request.kind, [row.task.bill for row in rows]

        def book(seconds: float, apart: Mapping[Kind, Sequence[float]]) -> None:
            self._running += seconds
            own = seconds
            for each, parts in apart.items():
                self._tallies[each] += Tally(calls=len(parts), seconds=sum(parts))
                own -= sum(parts)
            self._tallies[kind] += Tally(seconds=own)
            for bill in bills:
                bill.own += own / len(bills)

        return self.clock.call(book)

    def answered(self, rows: Sequence[Row], possible: int) -> None:
        """One batch more.

        Args:
            rows: that it had.
            possible: how many it could have had.
        """
        self.batches += 1
        self._tallies[rows[0].request.kind] += Tally(1, len(rows), max(len(rows), possible))

    def shared(self, is_row: bool) -> None:
        """An answer was had without computing it."""
        self.shared_answers += 1
        self.shared_rows += is_row

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Around a step of the engine."""
        started = time.perf_counter()
        yield
        self._stepping += time.perf_counter() - started

    def waiting(self) -> AbstractContextManager[None]:
        """Around a wait for what the device cannot help with."""
        return self.clock.wait(self._add_waiting)

    def _add_waiting(self, seconds: float) -> None:
        self._waiting += seconds
