"""The farm's policy: who renders what next, and what the loss of a worker means. No Ray, thread or clock."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Generic

from farm.cluster.backlog import Backlog, P, Task

DEATHS_ALONE = 3
"""Workers that die while they hold a task alone, before it is given up."""

BARREN_LIVES = 3
"""Lives in a row in which a worker finishes nothing, before it is set aside."""


@dataclass(frozen=True, slots=True)
class Attempt(Generic[P]):
    """One try at a task; only the current one's result is taken.

    Attributes:
        number: unique within the queue.
        task: what is tried.
    """

    number: int
    task: Task[P]


@dataclass(frozen=True, slots=True)
class Loss(Generic[P]):
    """What became of the tasks that a lost worker held.

    Attributes:
        put_back: how many will be leased again.
        condemned: tasks that are given up, having lost their workers too often.
        set_aside: whether the worker gets nothing more.
    """

    put_back: int
    condemned: tuple[Task[P], ...]
    set_aside: bool


@dataclass(slots=True)
class _Member:
    """What the queue knows about a worker's place; its lives come and go.

    Attributes:
        held: numbers of its current attempts.
        cost: of what it holds.
        alive: between `join` and `lose`.
        isolated: what it holds was held by a worker that died; nothing is mixed into it.
        reborn: it has died before.
        fruitful: this life has finished something.
        proven: some life has.
        barren: lives in a row that have not.
    """

    held: dict[int, None] = field(default_factory=dict)
    cost: float = 0.0
    alive: bool = False
    isolated: bool = False
    reborn: bool = False
    fruitful: bool = False
    proven: bool = False
    barren: int = 0


class Queue(Generic[P]):
    """Tasks on their way to workers and back; every task ends finished or condemned, once.

    Workers take work for the weights that they have, then unclaimed weights, then from the longest bin; they
    change weights only with empty hands, so that a small card never needs two checkpoints at once.

    What a lost worker held is suspect: it is leased again in halves, each to a worker that holds nothing
    else, so that the culprit is found among n tasks in about log2(n) further deaths. Only a death with a
    single task in hand counts against that task. A worker that only dies is tried on untouched work first,
    so that it cannot condemn one suspect after the other, and is set aside after three barren lives.
    """

    def __init__(self, tasks: Iterable[Task[P]], workers: Iterable[str]) -> None:
        """Takes the tasks in render order, and the names of all workers that are expected to join."""
        tasks = list(tasks)
        self._backlog = Backlog(tasks)
        self._suspects: deque[list[Task[P]]] = deque()
        self._charged: deque[Task[P]] = deque()
        self._charges: dict[object, list[str]] = {}
        self._attempts: dict[int, tuple[Task[P], str]] = {}
        self._members = {name: _Member() for name in workers}
        self._alive: set[str] = set()
        self._usable = len(self._members)
        self._numbers = count(1)
        self._open_cost = sum(task.cost for task in tasks)
        self.unfinished = len(tasks)
        """Tasks that are neither finished nor condemned."""

    @property
    def waiting(self) -> bool:
        """Whether any task is with no worker."""
        return bool(self._backlog or self._suspects or self._charged)

    @property
    def usable(self) -> int:
        """Workers that are not set aside."""
        return self._usable

    def barren(self, worker: str) -> int:
        """Lives in a row in which this worker finished nothing."""
        return self._members[worker].barren

    def join(self, worker: str) -> None:
        """A (new) life of this worker has begun."""
        member = self._members[worker]
        member.alive, member.fruitful = True, False
        self._alive.add(worker)

    def lease(self, worker: str, wanted: int) -> tuple[Attempt[P], ...]:
        """Gives a worker up to about `wanted` tasks; none when there is nothing for it now."""
        member = self._members[worker]
        if wanted < 1 or not member.alive or (member.isolated and member.held):
            return ()
        tasks = self._lease_tasks(worker, member, wanted)
        attempts = tuple(Attempt(next(self._numbers), task) for task in tasks)
        for attempt in attempts:
            self._attempts[attempt.number] = (attempt.task, worker)
            member.held[attempt.number] = None
            member.cost += attempt.task.cost
        return attempts

    def finish(self, number: int) -> Task[P] | None:
        """Takes the result of an attempt: its task, or None if the attempt is no longer the current one."""
        if number not in self._attempts:
            return None
        task, worker = self._attempts.pop(number)
        member = self._members[worker]
        self._release(member, number, task)
        member.fruitful = member.proven = True
        member.barren = 0
        self._close(task)
        return task

    def lose(self, worker: str) -> Loss[P]:
        """This life of a worker is over: what it held goes back, or is condemned."""
        member = self._members[worker]
        tasks = [self._attempts[number][0] for number in member.held]
        for number, task in zip(list(member.held), tasks, strict=True):
            del self._attempts[number]
            self._release(member, number, task)
        self._alive.discard(worker)
        self._backlog.drop(worker)
        set_aside = self._bury(member)
        condemned = self._put_back(tasks, worker)
        return Loss(len(tasks) - len(condemned), condemned, set_aside)

    def _lease_tasks(self, worker: str, member: _Member, wanted: int) -> list[Task[P]]:
        suspects = self._suspects_for(worker)
        if suspects and member.held and member.reborn:
            return []  # its hands must be empty first
        on_trial = bool(suspects and member.barren and self._backlog)
        if suspects and not member.held and not on_trial:
            member.isolated = True
            return self._take_suspects(suspects, wanted)
        member.isolated = False
        allowance = self._open_cost / max(1, self._usable) - member.cost
        if member.held and allowance <= 0:
            return []
        return self._backlog.take(worker, 1 if on_trial else wanted, allowance, switch=not member.held)

    def _suspects_for(self, worker: str) -> list[Task[P]]:
        if self._suspects:
            return self._suspects[0]
        return next(([task] for task in self._charged if self._may_try(worker, task)), [])

    def _may_try(self, worker: str, task: Task[P]) -> bool:
        """A task is not tried again where it died alone, as long as another worker is alive."""
        charges = set(self._charges[task.key])
        return worker not in charges or len(charges & self._alive) == len(self._alive)

    def _take_suspects(self, tasks: list[Task[P]], wanted: int) -> list[Task[P]]:
        if not self._suspects:
            self._charged.remove(tasks[0])
            return tasks
        self._suspects.popleft()
        if tasks[wanted:]:
            self._suspects.appendleft(tasks[wanted:])
        return tasks[:wanted]

    def _release(self, member: _Member, number: int, task: Task[P]) -> None:
        del member.held[number]
        member.cost = member.cost - task.cost if member.held else 0.0

    def _close(self, task: Task[P]) -> None:
        self.unfinished -= 1
        self._open_cost -= task.cost
        self._charges.pop(task.key, None)

    def _bury(self, member: _Member) -> bool:
        """Ends a life; says whether the worker is set aside.

        The last worker that is known to work is not blamed for suspects: there is nobody else to try them
        on, and each suspect's own count ends that.
        """
        excused = member.isolated and member.proven and not self._alive
        if not member.fruitful and not excused:
            member.barren += 1
        member.alive = member.isolated = member.fruitful = False
        member.reborn = True
        set_aside = member.barren >= BARREN_LIVES
        self._usable -= set_aside
        return set_aside

    def _put_back(self, tasks: list[Task[P]], worker: str) -> tuple[Task[P], ...]:
        if len(tasks) > 1:
            middle = (len(tasks) + 1) // 2
            self._suspects.extend((tasks[:middle], tasks[middle:]))
            return ()
        condemned = tuple(task for task in tasks if self._charge(task, worker))
        self._charged.extend(task for task in tasks if task not in condemned)
        return condemned

    def _charge(self, task: Task[P], worker: str) -> bool:
        charges = self._charges.setdefault(task.key, [])
        charges.append(worker)
        if len(charges) < DEATHS_ALONE:
            return False
        self._close(task)
        return True
