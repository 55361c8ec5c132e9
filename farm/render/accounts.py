"""The engine's book-keeping of what it did and how long that took."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from farm.render.buckets import bucket_of
from farm.render.requests import Request
from farm.work import Kind, Tally, Work


@dataclass(slots=True)
class Accounts:
    """Counts; `work` tells.

    Attributes:
        batches: that were answered.
        shared_answers: to shared recipes, whatever they were.
        shared_rows: of these, rows of the UNet.
        again: coroutines begun again.
    """

    batches: int = 0
    shared_answers: int = 0
    shared_rows: int = 0
    again: int = 0
    _tallies: defaultdict[Kind, Tally] = field(default_factory=lambda: defaultdict(Tally))
    _stepping: float = 0.0
    _running: float = 0.0
    _waiting: float = 0.0

    def work(self) -> Work:
        """All that was done so far."""
        between = self._stepping - self._running - self._waiting
        return Work(dict(self._tallies), self.shared_rows, self._waiting, between, self.again)

    def answered(self, request: Request, rows: int, possible: int, seconds: float) -> None:
        """One batch more.

        Args:
            request: one of its rows.
            rows: how many it had.
            possible: how many it could have had.
            seconds: that it took.
        """
        kind = request.kind
        self.batches += 1
        self._running += seconds
        computed = 1 if kind.request == "open" else bucket_of(rows)
        self._tallies[kind] += Tally(1, rows, computed, max(rows, possible), seconds)

    def lost(self, seconds: float) -> None:
        """A batch that failed took so long."""
        self._running += seconds

    @contextmanager
    def waiting_for(self, kind: Kind) -> Iterator[None]:
        """Around a wait for an answer that the device still has to give, of a batch that was counted."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self._running += seconds
        self._tallies[kind] += Tally(seconds=seconds)

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

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait for what the device cannot help with."""
        started = time.perf_counter()
        yield
        self._waiting += time.perf_counter() - started
