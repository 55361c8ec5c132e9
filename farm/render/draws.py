"""Noise drawn ahead, off the loop: a few threads draw while the device works."""

import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import torch

from farm.questions import Draw
from farm.render.task import Task

THREADS = 2
"""That draw. Small draws are mostly Python, of which only one thread runs at a time."""

Drawn = tuple[Task, int, Any]
"""Who asked, for which of its answers, and the noise or the exception in its place."""


class Draws:
    """Draws that were asked for and not handed out yet.

    Draws of one source are made one after another in the order in which they were asked for, each source on
    its own: what is drawn does not depend on the threads. All but the drawing happens in the engine's thread.
    The threads end with `close`, or when nobody holds this any more.

    Args:
        threads: that draw at once.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="draw")
        self._numbers = count()
        self._asked: dict[int, tuple[Task, int]] = {}
        self._done: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._lines: dict[int, deque[tuple[int, Draw]]] = {}  # by source; one thread serves a line
        self._lock = threading.Lock()  # guards the lines

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, task: Task, slot: int, draw: Draw) -> None:
        """Has noise drawn for one of a task's answers.

        Raises:
            RuntimeError: this is closed.
        """
        number, source = next(self._numbers), id(draw.source)
        with self._lock:
            if source not in self._lines:
                self._pool.submit(self._serve, source)
                self._lines[source] = deque()
            self._lines[source].append((number, draw))
        self._asked[number] = (task, slot)

    @property
    def holding_up(self) -> frozenset[int]:
        """The draws that are all that their askers wait for; others can still come with an answer."""
        asked = Counter(task for task, _ in self._asked.values())
        return frozenset(number for number, (task, _) in self._asked.items() if asked[task] == task.missing)

    def wait_for(self, numbers: frozenset[int]) -> list[Drawn]:
        """These draws and what else has been drawn by then, in the order in which it was asked for.

        Args:
            numbers: of `holding_up`; none is what has been drawn by now.
        """
        answers: dict[int, Any] = {}
        while len(answers) < len(self._asked):
            try:
                number, answer = self._done.get(block=not numbers <= answers.keys())
            except Empty:
                break
            if number in self._asked:  # or its asker is gone
                answers[number] = answer
        return [(*self._asked.pop(number), answers[number]) for number in sorted(answers)]

    def discard(self, task: Task) -> None:
        """Forgets what a task asked for."""
        unwanted = {number for number, (asker, _) in self._asked.items() if asker is task}
        for number in unwanted:
            del self._asked[number]
        with self._lock:
            for source, line in self._lines.items():
                self._lines[source] = deque(entry for entry in line if entry[0] not in unwanted)

    def close(self) -> None:
        """Forgets everything and ends the threads, after the draws at hand."""
        self._asked.clear()
        with self._lock:
            for line in self._lines.values():
                line.clear()
        self._pool.shutdown(cancel_futures=True)
        self._lines.clear()  # nobody serves them any more

    def _serve(self, source: int) -> None:
        """In a thread of the pool: draws whatever is asked of one source."""
        while (entry := self._next(source)) is not None:
            number, draw = entry
            self._done.put((number, _drawn(draw)))

    def _next(self, source: int) -> tuple[int, Draw] | None:
        with self._lock:
            if self._lines[source]:
                return self._lines[source].popleft()
            del self._lines[source]  # while the last draw keeps the source alive, and its id its own
            return None


@torch.inference_mode()
def _drawn(draw: Draw) -> Any:
    try:
        return draw.source.draw(draw.sigma, draw.lower)
    except BaseException as error:  # its asker's; nobody else looks at what happens in this thread
        return error
