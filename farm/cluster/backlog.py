"""Work that nobody has touched yet, sorted by the weights that it needs."""

import heapq
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Generic, TypeVar

P = TypeVar("P")

LARGEST_CHUNK = 16
"""Tasks of one group that stay together: past this, sharing a first pass saves nothing that counts."""


@dataclass(frozen=True, slots=True)
class Task(Generic[P]):
    """Something to be done once, whatever it is.

    Attributes:
        key: names the task; no two tasks of a queue have the same.
        payload: what the worker gets.
        weights: the networks that it needs loaded.
        group: neighbours of equal group share work and are leased together; None stands alone.
        cost: in any unit, the same for all tasks of a queue; above 0.
        wave: one is handed out when nothing of those below it is left.
        kind: of the work.
    """

    key: Hashable
    payload: P
    weights: str = ""
    group: Hashable = None
    cost: float = 1.0
    wave: int = 0
    kind: str = "render"


@dataclass(slots=True)
class _Chunk(Generic[P]):
    """Neighbours of one group."""

    tasks: deque[Task[P]]
    cost: float


@dataclass(slots=True)
class _Bin(Generic[P]):
    """Everything left that needs the same weights."""

    chunks: deque[_Chunk[P]] = field(default_factory=deque)
    cost: float = 0.0
    claimants: int = 0


class Backlog(Generic[P]):
    """Untouched tasks; each operation takes amortised O(log weights) time per task that it hands out.

    A worker claims the weights that it last took work for, until it takes others or drops them. Work comes
    in waves: what is said here of weights holds inside of one, and claims last from one to the next, so that
    networks which are loaded are used on.
    """

    def __init__(self, tasks: Iterable[Task[P]]) -> None:
        self._bins: dict[str, _Bin[P]] = {}
        self._claims: dict[str, str] = {}
        ordered = sorted(tasks, key=_wave)
        self._later = deque(list(wave) for _, wave in groupby(ordered, key=_wave))
        self._begin_wave()

    def __bool__(self) -> bool:
        return bool(self._bins)

    def take(self, worker: str, wanted: int, allowance: float, switch: bool) -> list[Task[P]]:
        """Hands out tasks of one weights: the claimed ones, else unclaimed ones, else the longest bin's.

        With the last of a wave, tasks of the next one are given that need the same weights.

        Args:
            worker: who asks.
            wanted: tasks to reach; the last group is given whole even if that goes past it.
            allowance: cost that the tasks may sum to; the first task is given in any case.
            switch: whether weights other than the claimed ones may be given.
        """
        weights = self._choose(worker, switch)
        if weights is None:
            return []
        self._claim(worker, weights)
        taken: list[Task[P]] = []
        while weights in self._bins:
            _cut(self._bins[weights], taken, wanted, allowance)
            if self._bins[weights].chunks:
                break
            del self._bins[weights]
            if not self._bins:
                self._begin_wave()
        return taken

    def drop(self, worker: str) -> None:
        """Forgets the claim of a worker that is gone."""
        weights = self._claims.pop(worker, None)
        shelf = self._bins.get(weights) if weights is not None else None
        if shelf is None or weights is None:
            return
        shelf.claimants -= 1
        if not shelf.claimants:
            self._unclaimed[weights] = None

    def _begin_wave(self) -> None:
        for chunk in _chunks(self._later.popleft() if self._later else ()):
            shelf = self._bins.setdefault(chunk.tasks[0].weights, _Bin())
            shelf.chunks.append(chunk)
            shelf.cost += chunk.cost
        for weights in self._claims.values():
            if weights in self._bins:
                self._bins[weights].claimants += 1
        self._unclaimed = {weights: None for weights, shelf in self._bins.items() if not shelf.claimants}
        self._longest = [(-shelf.cost, weights) for weights, shelf in self._bins.items()]
        heapq.heapify(self._longest)

    def _choose(self, worker: str, switch: bool) -> str | None:
        claimed = self._claims.get(worker)
        if claimed in self._bins:
            return claimed
        if claimed is not None and not switch:
            return None
        while self._unclaimed:
            weights = next(iter(self._unclaimed))
            if weights in self._bins:
                return weights
            del self._unclaimed[weights]
        return self._find_longest()

    def _find_longest(self) -> str | None:
        """The bin of the greatest cost; costs only fall, so an entry is put right at the top."""
        while self._longest:
            cost, weights = self._longest[0]
            shelf = self._bins.get(weights)
            if shelf is None:
                heapq.heappop(self._longest)
            elif -shelf.cost == cost:
                return weights
            else:
                heapq.heapreplace(self._longest, (-shelf.cost, weights))
        return None

    def _claim(self, worker: str, weights: str) -> None:
        if self._claims.get(worker) == weights:
            return
        self.drop(worker)
        self._claims[worker] = weights
        self._bins[weights].claimants += 1
        self._unclaimed.pop(weights, None)


def _chunks(tasks: Iterable[Task[P]]) -> Iterable[_Chunk[P]]:
    for _, neighbours in groupby(tasks, key=_group):
        group = list(neighbours)
        for start in range(0, len(group), LARGEST_CHUNK):
            part = group[start : start + LARGEST_CHUNK]
            yield _Chunk(deque(part), sum(task.cost for task in part))


def _wave(task: Task[P]) -> int:
    return task.wave


def _group(task: Task[P]) -> Hashable:
    return task.weights, task.key if task.group is None else (task.group,)


def _cut(shelf: _Bin[P], taken: list[Task[P]], wanted: int, allowance: float) -> None:
    """Adds whole chunks to `taken` while they fit; a chunk that does not fit by itself is cut."""
    spent = sum(task.cost for task in taken)
    while shelf.chunks and len(taken) < wanted:
        chunk = shelf.chunks[0]
        if taken and spent + chunk.cost > allowance:
            break
        part = _part(chunk, allowance)
        taken.extend(part)
        cost = sum(task.cost for task in part)
        spent += cost
        chunk.cost -= cost
        shelf.cost -= cost
        if not chunk.tasks:
            shelf.chunks.popleft()


def _part(chunk: _Chunk[P], allowance: float) -> list[Task[P]]:
    part = [chunk.tasks.popleft()]
    spent = part[0].cost
    while chunk.tasks and spent + chunk.tasks[0].cost <= allowance:
        task = chunk.tasks.popleft()
        part.append(task)
        spent += task.cost
    return part
