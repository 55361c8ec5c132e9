"""Recipes that many coroutines need and that are run once: who waits for them, what they answered."""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch

from farm.render.requests import Share
from farm.render.task import Task

OBJECT = 1024
"""Bytes of Python's own for an answer and its key, about."""


@dataclass(slots=True)
class _Running:
    task: Task
    waiters: list[tuple[Task, int]] = field(default_factory=list)


class Shares:
    """Shared recipes that run, and the answers of those that have.

    Answers are read-only to their askers. They are kept while they fit into the budget, those that were
    asked for last the longest; a failure is thrown into each waiter and not kept.

    Args:
        budget: bytes of the answers kept.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held = 0
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._running: dict[Hashable, _Running] = {}

    def answer(self, key: Hashable) -> tuple[Any, bool]:
        """The answer that is kept for a key, and whether there is one."""
        if key not in self._answers:
            return None, False
        self._answers.move_to_end(key)
        return self._answers[key], True

    def wait(self, task: Task, slot: int, request: Share) -> Task | None:
        """Lets `task` wait for a recipe; returns the recipe's own task if this is its first asker.

        Raises:
            RecursionError: if the recipe waits for `task` itself, however indirectly.
        """
        running = self._running.get(request.key)
        if running is not None and task.is_shared and self._waits_for(running.task, task.name):
            raise RecursionError(f"the shared recipes {request.key!r} and {task.name!r} wait for each other")
        started = None
        if running is None:
            started = _begun(request)
            running = self._running[request.key] = _Running(started)
        running.waiters.append((task, slot))
        task.waits_for.add(request.key)
        return started

    def settle(self, key: Hashable) -> list[tuple[Task, int]]:
        """Ends a running recipe; returns who waited for it and in which slot."""
        waiters = self._running.pop(key).waiters
        for waiter, _ in waiters:
            waiter.waits_for.discard(key)
        return waiters

    def keep(self, key: Hashable, answer: Any) -> None:
        """Keeps the answer of a recipe that has ended, and lets go of the oldest beyond the budget."""
        self._answers[key] = answer
        self._held += size_of(answer)
        while self._held > self._budget:
            self._held -= size_of(self._answers.popitem(last=False)[1])

    def forget(self) -> None:
        """Lets go of all answers that are kept: memory is short."""
        self._answers.clear()
        self._held = 0

    def leave(self, key: Hashable, task: Task) -> Task | None:
        """Stops `task` waiting for a recipe; returns the recipe's task if nobody is left who waits."""
        running = self._running[key]
        running.waiters = [waiter for waiter in running.waiters if waiter[0] is not task]
        if running.waiters:
            return None
        return self._running.pop(key).task

    def _waits_for(self, task: Task, key: Hashable) -> bool:
        if task.name == key:
            return True
        return any(self._waits_for(self._running[other].task, key) for other in task.waits_for)


def _begun(request: Share) -> Task:
    """The recipe's task. Its order goes by the key, since who asks first can hang on the threads."""
    generator = generator_for(request.key)
    return Task(request.key, request.recipe(generator), generator.initial_seed(), is_shared=True)


def generator_for(key: Hashable) -> torch.Generator:
    """A random generator that depends on nothing but the key: the asker's own must not leak in."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big"))


def size_of(answer: Any) -> int:
    """Bytes that keeping an answer costs: its tensors, and something for the objects around them."""
    if isinstance(answer, torch.Tensor):
        return answer.nbytes + OBJECT
    if isinstance(answer, (tuple, list)):
        return sum(size_of(part) for part in answer) + OBJECT
    return OBJECT


def apart(answer: Any) -> Any:
    """The answer without the batch that it is a slice of: a row would keep the whole batch in memory."""
    if isinstance(answer, torch.Tensor):
        return answer if answer.untyped_storage().nbytes() <= answer.nbytes else answer.clone()
    if isinstance(answer, tuple) and hasattr(answer, "_make"):
        return answer._make(apart(part) for part in answer)
    if type(answer) in (tuple, list):
        return type(answer)(apart(part) for part in answer)
    return answer
