"""Which rows wait, and which of them make the next batch. Pure bookkeeping: no tensors, no clock."""

import heapq
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from farm.render.buckets import Limit
from farm.render.requests import Request
from farm.render.task import Task


class Row(NamedTuple):
    """One request that waits: of a task, for one of the answers it expects.

    Rows order by who should be served first: shared recipes, then tasks in the order they were admitted. No
    two have the same rank.
    """

    rank: tuple[bool, int, int]
    task: Task
    slot: int
    request: Request


PATIENCE = 16
"""Batches of other keys that a row sees go by, at most; then its own goes first, however thin it is."""


@dataclass(slots=True)
class _Line:
    """The rows of one batch key, a heap, and the number of the batch since which they wait."""

    since: int
    rows: list[Row] = field(default_factory=list)

    @property
    def prepares(self) -> bool:
        return self.rows[0].request.prepares


class Queue:
    """Waiting rows, gathered by batch key."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line] = {}
        self._retries: deque[list[Row]] = deque()
        self._arrivals = count()
        self._taken = 0

    def __len__(self) -> int:
        """Rows that wait."""
        return sum(len(line.rows) for line in self._lines.values()) + sum(map(len, self._retries))

    def add(self, task: Task, slot: int, request: Request) -> None:
        """Lets a request of `task` wait for a batch."""
        rank = (not task.is_shared, task.order, next(self._arrivals))
        key = request.batch_key
        line = self._lines.get(key) or self._lines.setdefault(key, _Line(self._taken))
        heapq.heappush(line.rows, Row(rank, task, slot, request))

    def retry_in_halves(self, rows: Sequence[Row]) -> None:
        """Puts a batch that failed first in line again, as two batches."""
        middle = len(rows) // 2
        self._retries.extendleft((list(rows[middle:]), list(rows[:middle])))

    def discard(self, task: Task) -> None:
        """Forgets every row of a task."""
        for key, line in list(self._lines.items()):
            line.rows = [row for row in line.rows if row.task is not task]
            heapq.heapify(line.rows)
            if not line.rows:
                del self._lines[key]
        self._retries = deque([row for row in rows if row.task is not task] for rows in self._retries)

    def fullness(self, limit: Limit) -> float:
        """How full the next batch would be, of 1; what only prepares rows does not count."""
        return max(
            (_share(line, limit(key)) for key, line in self._lines.items() if not line.prepares), default=0.0
        )

    def take(self, limit: Limit) -> list[Row]:
        """The next batch, empty if nothing waits.

        What prepares rows goes first, then what has waited longer than PATIENCE, then the fullest batch, of
        equally full ones that of the first row.
        """
        while self._retries:
            if rows := self._retries.popleft():
                return self._within(limit, rows)
        if not self._lines:
            return []
        self._taken += 1
        key = max(self._lines, key=lambda key: self._urgency(self._lines[key], limit(key)))
        line = self._lines[key]
        batch = [heapq.heappop(line.rows) for _ in range(min(len(line.rows), limit(key)))]
        line.since = self._taken
        if not line.rows:
            del self._lines[key]
        return batch

    def _within(self, limit: Limit, rows: list[Row]) -> list[Row]:
        """As much of a batch that is tried again as may go together by now."""
        most = limit(rows[0].request.batch_key)
        self._retries.appendleft(rows[most:])
        return rows[:most]

    def _urgency(self, line: _Line, limit: int) -> tuple[bool, int, float, tuple[int, ...]]:
        waited = self._taken - line.since
        overdue = waited if waited > PATIENCE else 0
        return line.prepares, overdue, _share(line, limit), tuple(-number for number in line.rows[0].rank)


def _share(line: _Line, limit: int) -> float:
    return min(1.0, len(line.rows) / limit)
