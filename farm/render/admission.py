"""Who is in flight: coroutines that wait to begin, those that have begun, and how many may."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import count

from farm.render.requests import Coroutine
from farm.render.task import Bill, Task

MOST_TRIES = 3
"""Of a coroutine that dies for want of memory; the last one is made alone."""

Again = Callable[[], Coroutine]
"""Makes a coroutine anew."""


@dataclass(slots=True)
class _Waiting:
    coroutine: Coroutine
    again: Again | None
    tries: int = 1
    bill: Bill | None = None  # of earlier tries


class Admission:
    """Coroutines by name, in the order in which they begin.

    One that died for want of memory begins again before the others, with half as many beside it; its last
    try is made alone. With each one that ends well, the number that may be in flight doubles again.
    """

    def __init__(self) -> None:
        self.running: dict[Hashable, Task] = {}
        self._waiting: OrderedDict[Hashable, _Waiting] = OrderedDict()
        self._begun: dict[Hashable, _Waiting] = {}
        self._orders = count()
        self._most: int | None = None

    def __contains__(self, name: Hashable) -> bool:
        return name in self._waiting or name in self.running

    @property
    def names(self) -> tuple[Hashable, ...]:
        """Of all, those that wait first."""
        return (*self._waiting, *self.running)

    @property
    def waiting(self) -> int:
        """How many have not begun."""
        return len(self._waiting)

    def add(self, name: Hashable, coroutine: Coroutine, again: Again | None) -> None:
        """Lets a coroutine wait for its turn."""
        self._waiting[name] = _Waiting(coroutine, again)

    def withdraw(self, name: Hashable) -> Task | None:
        """Forgets a coroutine: returns its task if it had begun."""
        if (waiting := self._waiting.pop(name, None)) is not None:
            waiting.coroutine.close()
        self._begun.pop(name, None)
        return self.running.pop(name, None)

    def begin(self, most: int) -> Task | None:
        """The next one's task, if so many in flight leave room for it."""
        if self._most is not None and self._most >= most:
            self._most = None
        if not self._waiting:
            return None
        name = next(iter(self._waiting))
        if len(self.running) >= self._room(self._waiting[name], most):
            return None
        waiting = self._begun[name] = self._waiting.pop(name)
        task = self.running[name] = Task(name, waiting.coroutine, next(self._orders))
        task.bill = waiting.bill or task.bill
        return task

    def end(self, name: Hashable, well: bool) -> None:
        """One has ended, with a result if it ended well."""
        del self.running[name], self._begun[name]
        if self._most is not None and well:
            self._most *= 2

    def begin_again(self, task: Task) -> bool:
        """Whether one that died for want of memory is tried again; its next turn is the first."""
        name = task.name
        ended = self._begun[name]
        if ended.again is None or ended.tries == MOST_TRIES:
            return False
        self._most = max(1, len(self.running) // 2)
        del self.running[name], self._begun[name]
        self._waiting[name] = _Waiting(ended.again(), ended.again, ended.tries + 1, task.bill)
        self._waiting.move_to_end(name, last=False)
        return True

    def _room(self, next_one: _Waiting, most: int) -> int:
        lonely = any(one.tries == MOST_TRIES for one in self._begun.values())
        if lonely or next_one.tries == MOST_TRIES:
            return 1
        return most if self._most is None else min(most, self._most)
