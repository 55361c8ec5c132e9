"""One coroutine in flight and the answers it waits for."""

from collections.abc import Hashable
from typing import Any

from farm.render.requests import Coroutine


class Bill:
    """Seconds of a device, which may become known after they were spent.

    Attributes:
        own: seconds of calls.
    """

    def __init__(self) -> None:
        self.own = 0.0
        self._shares: list[tuple[Bill, float]] = []

    def share(self, bill: "Bill", part: float) -> None:
        """Takes over a part of another one, whatever it will come to."""
        self._shares.append((bill, part))

    @property
    def seconds(self) -> float:
        """All together, as far as known."""
        seconds, left = 0.0, [(self, 1.0)]
        while left:  # recipes may ask for recipes however deep
            bill, whole = left.pop()
            seconds += whole * bill.own
            left += [(other, whole * part) for other, part in bill._shares]
        return seconds


class Task:
    """A coroutine between two of its steps.

    Attributes:
        name: of the cell, or the key of the shared recipe.
        coroutine: what is being run.
        order: tasks of a lower one are served first; of cells the rising number of admission.
        is_shared: whether the engine owns it for whoever asks.
        missing: answers that are still to come before it can go on.
        bill: its share of the device's time so far.
        waits_for: keys of the shared recipes that it waits for.
    """

    def __init__(self, name: Hashable, coroutine: Coroutine, order: int, is_shared: bool = False) -> None:
        self.name = name
        self.coroutine = coroutine
        self.order = order
        self.is_shared = is_shared
        self.missing = 0
        self.bill = Bill()
        self.waits_for: set[Hashable] = set()
        self._answers: list[Any] = [None]
        self._asked_for_one = True

    def resume(self) -> tuple[Any, ...]:
        """Sends the answers, or throws the first exception among them; returns what is asked for next.

        Raises:
            StopIteration: when the coroutine has returned, with its result.
        """
        failure = next((answer for answer in self._answers if isinstance(answer, BaseException)), None)
        if failure is not None:
            asked = self.coroutine.throw(failure)
        else:
            asked = self.coroutine.send(self._answers[0] if self._asked_for_one else tuple(self._answers))
        self._asked_for_one = not isinstance(asked, tuple)
        requests = (asked,) if self._asked_for_one else asked
        self._answers, self.missing = [None] * len(requests), len(requests)
        self.waits_for.clear()
        return requests

    def accept(self, slot: int, answer: Any) -> bool:
        """Takes one answer, or the exception in its place; True when the task can go on."""
        self._answers[slot] = answer
        self.missing -= 1
        return self.missing == 0

    def close(self) -> list[BaseException]:
        """Ends the coroutine, which may be anybody's; returns what it raises instead, if it does."""
        try:
            self.coroutine.close()
        except BaseException as error:
            return [error]
        return []
