"""A small real runner, and coroutines for it: the engine's bookkeeping without networks."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from farm.render.capacity import Capacity
from farm.render.engine import Engine, Finished
from farm.render.requests import Coroutine, Decode, Predict, Request, Share, Weights
from farm.render.told import Conditioning

NOTHING = Conditioning(torch.zeros(1, 1))


def ask(value: float, weights: str = "a", size: int = 1) -> Predict:
    """A row that is answered by its value doubled."""
    return Predict(Weights(weights), torch.full((1, 1, size), float(value)), 0.0, NOTHING)


def last(value: float, weights: str = "a") -> Decode:
    """The request that ends a cell."""
    return Decode(Weights(weights), torch.full((1, 1, 1), float(value)))


def number(request: Request) -> float:
    tensor = request.input if isinstance(request, Predict) else request.latents  # type: ignore[union-attr]
    return float(tensor[0, 0, 0])


@dataclass
class Doubling:
    """Answers rows by their doubles; rows in `poisoned` break their batch, batches beyond `memory` too."""

    poisoned: tuple[float, ...] = ()
    memory: int = 10**9
    log: list[Any] = field(default_factory=list)
    batches: list[list[Request]] = field(default_factory=list)

    def run(self, requests: list[Request]) -> list[Any]:
        self.batches.append(requests)
        if len(requests) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if broken := [number(request) for request in requests if number(request) in self.poisoned]:
            raise RuntimeError(f"cannot double {broken}")
        return Told([2 * number(request) for request in requests], self.log)


class Told(list[Any]):
    """Answers that note when each is read."""

    def __init__(self, answers: list[Any], log: list[Any]) -> None:
        super().__init__(answers)
        self._log = log

    def __iter__(self) -> Iterator[Any]:
        for answer in list.__iter__(self):
            self._log.append("answer")
            yield answer


def engine(runner: Doubling, rows: int = 4, **options: int) -> Engine:
    return Engine(runner, Capacity(torch.device("cpu"), rows), **options)


def finish(machine: Engine, at_most: int = 10_000) -> dict[Hashable, Finished]:
    """Steps until nothing is in flight; fails rather than hangs."""
    ended: dict[Hashable, Finished] = {}
    for _ in range(at_most):
        ended |= {one.name: one for one in machine.step()}
        if not machine.in_flight:
            return ended
    raise AssertionError(f"{machine.in_flight} coroutines are stuck")


def steps(value: float, count: int, weights: str = "a") -> Coroutine:
    """A cell: `count` rows one after another, each doubling the answer of the one before."""
    for _ in range(count):
        value = yield ask(value, weights)
    return value


def shared(key: Hashable, recipe: Callable[[], Coroutine] | None = None) -> Share:
    """A share whose recipe, if none is given, asks for one row of 5."""
    return Share(key, lambda generator: recipe() if recipe is not None else steps(5, 1))


def asks(*requests: Any) -> Coroutine:
    """Asks for all of them together and returns the answers."""
    return (yield tuple(requests))
