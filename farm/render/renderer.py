"""One device as the farm sees it: cells go in, pictures come out."""

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import torch
from PIL import Image

from farm.cell import Cell
from farm.errors import CellFailed, described
from farm.render.capacity import Capacity
from farm.render.device import leave_cores_free
from farm.render.engine import Engine, Finished
from farm.render.recipes import Picture, text_to_image, weights_of
from farm.render.requests import Weights
from farm.render.runner import LOADED_AT_ONCE, Runner
from farm.sampling import BUILT_IN, Samplers
from farm.weights.checkpoint import Networks, load_checkpoint


@dataclass(frozen=True, slots=True)
class Rendered:
    """A cell that is through with the networks.

    Attributes:
        cell: which one.
        image: RGB; None if it failed.
        error: one line; empty if it did not fail.
        seconds: its share of the device's time.
        evaluations: of the model; 0 if it failed.
    """

    cell: Cell
    image: Image.Image | None
    error: str
    seconds: float
    evaluations: int = 0


class Renderer:
    """Renders cells in mixed batches. Belongs to one thread.

    Args:
        checkpoints: the folder of each checkpoint that cells may name.
        device: `cpu`, `cuda`, `cuda:1`, `mps`.
        rows: the largest batch; by the kind of device if not given.
    """

    def __init__(self, checkpoints: Mapping[str, Path], device: str, rows: int | None = None) -> None:
        target = torch.device(device)
        leave_cores_free(target)
        self._capacity = Capacity(target, rows)
        self._runner = Runner(partial(_load, checkpoints), target)
        self._engine = Engine(self._runner, self._capacity)
        self._names = count()  # cells of several jobs can have the same number
        self._cells: dict[Hashable, Cell] = {}
        self._held_back: deque[tuple[Cell, Samplers]] = deque()

    @property
    def hungry(self) -> int:
        """How many more cells it takes now so that its next batches stay full."""
        return max(0, self._capacity.largest - self._engine.waiting - len(self._held_back))

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not (self._cells or self._held_back)

    def submit(self, cell: Cell, samplers: Samplers = BUILT_IN) -> None:
        """Lets a cell wait for its turn.

        Args:
            cell: to render.
            samplers: that it can name.
        """
        self._held_back.append((cell, samplers))

    def step(self) -> list[Rendered]:
        """Runs one batch; returns the cells that finished by it, often none."""
        self._let_in()
        return [self._rendered(finished) for finished in self._engine.step()]

    def news(self) -> tuple[str, ...]:
        """What people may want to know of how it goes, since it was last asked; a line each."""
        notes = tuple(self._runner.notes)
        self._runner.notes.clear()
        return notes

    def close(self) -> None:
        """Drops what is in flight and ends the threads that draw noise."""
        self._engine.close()
        self._cells.clear()
        self._held_back.clear()

    def _let_in(self) -> None:
        """Not more checkpoints in flight than stay loaded, or every batch would load one again."""
        in_use = self._in_use()
        while self._held_back:
            in_use.add(weights_of(self._held_back[0][0].settings))
            if len(in_use) > LOADED_AT_ONCE:
                return
            name, (cell, samplers) = next(self._names), self._held_back.popleft()
            self._cells[name] = cell
            self._engine.submit(name, text_to_image(cell.settings, samplers))

    def _in_use(self) -> set[Weights]:
        return {weights_of(cell.settings) for cell in self._cells.values()}

    def _rendered(self, finished: Finished) -> Rendered:
        cell = self._cells.pop(finished.name)
        if (weights := weights_of(cell.settings)) not in self._in_use():
            self._runner.done_with(weights)
        if finished.error is not None:
            return Rendered(cell, None, described(finished.error), finished.seconds)
        picture: Picture = finished.result
        image = Image.fromarray(picture.pixels.numpy())
        return Rendered(cell, image, "", finished.seconds, picture.evaluations)


def _load(checkpoints: Mapping[str, Path], name: str, device: torch.device, dtype: torch.dtype) -> Networks:
    if name not in checkpoints:
        raise CellFailed(f"checkpoint {name!r} is not on this machine")
    return load_checkpoint(checkpoints[name], device, dtype)
