"""How long a device takes for what it is asked: by the host's clock, or by a card's own."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from farm.work import Kind

Book = Callable[[float, Mapping[Kind, Sequence[float]]], None]
"""Is told the seconds of a call, and those of its parts that were work of other kinds."""


class Mark(Protocol):
    """A moment."""

    @property
    def is_there(self) -> bool:
        """Whether it has come."""

    def since(self, earlier: Any) -> float:
        """Seconds from an earlier mark of the same kind to this one, which both have come."""
        ...


class HostMark:
    """The moment in which it is made."""

    is_there = True

    def __init__(self) -> None:
        self._time = time.perf_counter()

    def since(self, earlier: "HostMark") -> float:
        """See `Mark`."""
        return self._time - earlier._time


class CardMark:
    """The moment in which a card is done with all that it was asked before the mark was made."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record()

    @property
    def is_there(self) -> bool:
        """See `Mark`."""
        has_passed: Callable[[], bool] = self._event.query
        return has_passed()

    def since(self, earlier: "CardMark") -> float:
        """See `Mark`."""
        milliseconds: float = earlier._event.elapsed_time(self._event)
        return milliseconds / 1000


class Clock:
    """Tells the seconds of calls when they are known.

    A card's calls return before they are done, and whichever has to wait waits for those before it: the host
    cannot tell them apart. Marks in the card's own queue can; they are read when it has passed them, so that
    nothing waits for them. Gaps inside of a call count as the call's.

    Args:
        mark: makes a mark.
    """

    def __init__(self, mark: Callable[[], Mark] = HostMark) -> None:
        self._mark = mark
        self._apart: list[tuple[Kind, Mark, Mark]] = []
        self._last: Mark | None = None
        self._to_come: deque[tuple[Mark, Mark, Callable[[float], None]]] = deque()

    @contextmanager
    def call(self, book: Book) -> Iterator[None]:
        """Around a call, whose seconds are booked sooner or later, even if it fails."""
        begin, apart = self._mark(), list[tuple[Kind, Mark, Mark]]()
        self._apart = apart
        try:
            yield
        finally:
            self._last = self._mark()
            self._to_come.append((begin, self._last, lambda seconds: book(seconds, _sums(apart))))
            self.settle()

    @contextmanager
    def apart(self, kind: Kind) -> Iterator[None]:
        """Around a part of a call that is work of another kind."""
        begin = self._mark()
        try:
            yield
        finally:
            self._apart.append((kind, begin, self._mark()))

    @contextmanager
    def wait(self, book: Callable[[float], None]) -> Iterator[None]:
        """Around a wait of the host; what is booked is how long the device had nothing to do meanwhile."""
        started = time.perf_counter()
        yield
        waited = time.perf_counter() - started
        if self._last is None:
            book(waited)
        else:
            self._to_come.append((self._last, self._mark(), lambda idle: book(min(idle, waited))))
            self.settle()

    def settle(self) -> None:
        """Books what has become known."""
        while self._to_come and self._to_come[0][1].is_there:
            begin, end, book = self._to_come.popleft()
            book(end.since(begin))


def _sums(apart: Iterable[tuple[Kind, Mark, Mark]]) -> dict[Kind, list[float]]:
    found: dict[Kind, list[float]] = {}
    for kind, begin, end in apart:
        found.setdefault(kind, []).append(end.since(begin))
    return found


def clock_of(device: torch.device) -> Clock:
    """Of a device; mps has no marks that are known to be safe, so it is timed by the host."""
    return Clock(CardMark if device.type == "cuda" else HostMark)
