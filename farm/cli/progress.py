"""How far a run has come: a bar on a terminal, a line now and then in a log. On stderr."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ENOUGH_TO_GUESS = 3.0
"""Seconds from the first cell after which the rate can be told."""

LINE_EVERY = 10.0
"""Seconds between lines in a log."""


class RunProgress:
    """Counts cells as they finish; a context manager.

    Args:
        name: of the job.
        total: cells to render.
    """

    def __init__(self, name: str, total: int) -> None:
        self._name = name
        self._total = total
        self._count = 0
        self._failed = 0
        self._first = self._last_line = time.monotonic()
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task = self._bar.add_task(name, total=total, rate="", failed="") if self._bar else None

    def __enter__(self) -> "RunProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def count(self, failed: bool) -> None:
        """One more cell is through."""
        self._count += 1
        if self._count == 1:  # what comes before is starting up, and says nothing about the rate
            self._first = time.monotonic()
        self._failed += failed
        if self._bar and self._task is not None:
            failures = f"{self._failed} failed" if self._failed else ""
            self._bar.update(self._task, completed=self._count, rate=self._speed(), failed=failures)
        elif self._count == self._total or time.monotonic() - self._last_line > LINE_EVERY:
            self._last_line = time.monotonic()
            parts = (f"{self._count}/{self._total} cells", self._speed(), self._left())
            self.say(f"{self._name}: {', '.join(part for part in parts if part)}")

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def _rate(self) -> float:
        """Cells a second since the first one came; 0 while that says nothing, since a batch comes at once."""
        seconds = time.monotonic() - self._first
        return (self._count - 1) / seconds if seconds > ENOUGH_TO_GUESS else 0.0

    def _speed(self) -> str:
        rate = self._rate()
        return f"{rate:.1f}/s" if rate else ""

    def _left(self) -> str:
        rate = self._rate()
        if self._count == self._total or not rate:
            return ""
        seconds = (self._total - self._count) / rate
        return f"about {seconds:.0f} s left" if seconds < 120 else f"about {seconds / 60:.0f} min left"


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
        console=Console(stderr=True),
    )
