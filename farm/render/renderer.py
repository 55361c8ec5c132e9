"""One device as the farm sees it: cells go in, pictures come out."""

from collections import deque
from collections.abc import Hashable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from types import MappingProxyType

import torch
from PIL import Image

from farm.cache_file import cache_path
from farm.cell import Cell, FileUse, Settings
from farm.errors import CellFailed, described
from farm.init_pixels import InitPixels
from farm.merges import Checkpoint, files_of
from farm.render.broken import Broken
from farm.render.capacity import Capacity
from farm.render.clock import clock_of
from farm.render.device import dtype_for, leave_cores_free, name_of
from farm.render.engine import Engine, Finished
from farm.render.memory import Memory
from farm.render.profile import Profile
from farm.render.recipes import Picture, text_to_image, weights_of
from farm.render.remembered import Remembered
from farm.render.requests import Coroutine, Weights
from farm.render.runner import Runner
from farm.render.stored import Stored
from farm.sampling import BUILT_IN, Samplers
from farm.weights.checkpoint import Networks
from farm.weights.device_errors import is_out_of_memory
from farm.weights.loading import load_checkpoint
from farm.work import Work


@dataclass(frozen=True, slots=True)
class Rendered:
    """A cell that is through with the networks.

    Attributes:
        cell: which one.
        image: RGB; None if it failed.
        error: one line; empty if it did not fail.
        seconds: its share of the device's time.
        evaluations: of the model; 0 if it failed.
        remark: what was done otherwise than asked; empty if nothing was.
    """

    cell: Cell
    image: Image.Image | None
    error: str
    seconds: float
    evaluations: int = 0
    remark: str = ""


@dataclass(frozen=True, slots=True)
class _Try:
    """One try at a cell.

    Attributes:
        cell: which one.
        samplers: that it can name.
        settings: the cell's, but for the precision of a second try.
        seconds: of the device, that earlier tries took.
        remark: why it is not the first.
    """

    cell: Cell
    samplers: Samplers
    settings: Settings
    seconds: float = 0.0
    remark: str = ""


class Renderer:
    """Renders cells in mixed batches. Belongs to one thread.

    Args:
        checkpoints: where the weights of each are that cells may name.
        device: `cpu`, `cuda`, `cuda:1`, `mps`.
        rows: the largest batch; by the kind of device if not given.
        compiled: whether the UNets are compiled, see `farm.render.compiled`.
        profiled: whether some batches are recorded, see `farm.render.profile`.
        pictures: that cells may start from.
        files: that cells may name beside checkpoints.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        device: str,
        rows: int | None = None,
        compiled: bool = False,
        profiled: bool = False,
        pictures: InitPixels = MappingProxyType({}),
        files: Mapping[FileUse, Path] = MappingProxyType({}),
    ) -> None:
        self._pictures = pictures
        self._stored = Stored(files)
        self._device = torch.device(device)
        if self._device.type == "cuda" and self._device.index is not None:
            torch.cuda.set_device(self._device)  # what is captured is captured on the current one
        leave_cores_free(self._device)
        self._name = name_of(self._device)
        memory = Memory(self._device)
        self._capacity = _capacity(memory, rows)
        clock = clock_of(self._device)
        self._runner = Runner(
            partial(_load, checkpoints), self._device, capacity=self._capacity, compiles=compiled,
            memory=memory, clock=clock, files=self._stored.as_files(),
            reads_ahead=partial(_can_read_ahead, checkpoints),
        )  # fmt: skip
        self._profile = Profile() if profiled else None
        runner = self._profile.watched(self._runner) if self._profile else self._runner
        self._engine = Engine(runner, self._capacity, clock=clock)
        self._names = count()  # cells of several jobs can have the same number
        self._tries: dict[Hashable, _Try] = {}
        self._held_back: deque[_Try] = deque()

    @property
    def hungry(self) -> int:
        """How many more cells it takes now so that its next batches stay full."""
        return max(0, self._capacity.largest - self._engine.waiting - len(self._held_back))

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not (self._tries or self._held_back)

    def take_work(self) -> Work:
        """What was done since this was last asked."""
        work = replace(self._engine.take_work(), notes=self._runner.take_notes(), device=self._name)
        if self._profile is None:
            return work
        if self.idle:
            self._profile.end()
        return replace(work, files=self._profile.take_files())

    def submit(self, cell: Cell, samplers: Samplers = BUILT_IN) -> None:
        """Lets a cell wait for its turn.

        Args:
            cell: to render.
            samplers: that it can name.
        """
        self._held_back.append(_Try(cell, samplers, cell.settings))

    def step(self) -> list[Rendered]:
        """Runs one batch; returns the cells that finished by it, often none."""
        self._let_in()
        ended = [self._rendered(finished) for finished in self._engine.step()]
        if self._profile is not None:
            self._profile.turn()
        return [rendered for rendered in ended if rendered is not None]

    def close(self) -> None:
        """Drops what is in flight and ends the threads that draw noise."""
        try:
            with closing(self._runner):
                self._engine.close()
        finally:
            self._tries.clear()
            self._held_back.clear()

    def _let_in(self) -> None:
        """Not more checkpoints in flight than stay loaded, or every batch would load one again.

        While cells are in flight, those behind them wait until their checkpoint is read.
        """
        in_use = self._in_use()
        if len(in_use) > self._runner.loaded_at_once:
            in_use = self._put_back()
        while self._held_back:
            weights = weights_of(self._held_back[0].settings)
            if weights not in in_use and self._tries and not self._runner.read_ahead(weights):
                return
            in_use.add(weights)
            if len(in_use) > self._runner.loaded_at_once:
                return
            name, one = next(self._names), self._held_back.popleft()
            self._tries[name] = one
            begin = partial(self._begun, one)
            self._engine.submit(name, begin(), begin)

    def _begun(self, one: _Try) -> Coroutine:
        """The recipe of a try; what it needs of small files is read in it, so that they fail it alone."""
        embeddings = self._stored.embeddings(one.cell.files)
        return (yield from text_to_image(one.settings, one.samplers, self._pictures, embeddings))

    def _in_use(self) -> set[Weights]:
        return {weights_of(one.settings) for one in self._tries.values()}

    def _put_back(self) -> set[Weights]:
        """Cells of other checkpoints than the first wait again: there turned out to be room for one alone."""
        first = weights_of(next(iter(self._tries.values())).settings)
        others = [name for name, one in self._tries.items() if weights_of(one.settings) != first]
        for name in reversed(others):
            self._engine.cancel(name)
            self._held_back.appendleft(self._tries.pop(name))
        return {first}

    def _rendered(self, finished: Finished) -> Rendered | None:
        """What a try came to; None if the cell is tried again."""
        one = self._tries.pop(finished.name)
        if (weights := weights_of(one.settings)) not in self._in_use():
            self._runner.done_with(weights)
        seconds = one.seconds + finished.seconds
        if isinstance(finished.error, Broken) and not self._is_precise(one.settings):
            self._try_precisely(replace(one, seconds=seconds), finished.error)
            return None
        if finished.error is not None:
            return Rendered(one.cell, None, self._reason(finished.error, one), seconds)
        picture: Picture = finished.result
        image = Image.fromarray(picture.pixels.numpy())
        return Rendered(one.cell, image, "", seconds, picture.evaluations, one.remark or picture.remark)

    def _reason(self, error: Exception, one: _Try) -> str:
        if is_out_of_memory(error):
            return f"it does not fit into the memory of {self._device}, even alone: {described(error)}"
        again = ", at fp32 too" if isinstance(error, Broken) and one.remark else ""
        return described(error) + again

    def _is_precise(self, settings: Settings) -> bool:
        return dtype_for(settings.precision, self._device) == torch.float32

    def _try_precisely(self, one: _Try, broken: Broken) -> None:
        """All networks in fp32, after the cells that are waiting: it can be another load."""
        self._engine.accounts.again += 1
        settings = replace(one.settings, precision="fp32")
        remark = f"rendered at fp32, since {broken.fault.value}"
        self._held_back.append(replace(one, settings=settings, remark=remark))


def _capacity(memory: Memory, rows: int | None) -> Capacity:
    if not memory.name:
        return Capacity(memory.device, rows)
    return Capacity(memory.device, rows, memory, Remembered(memory.name, cache_path("capacity.json")))


def _can_read_ahead(checkpoints: Mapping[str, Checkpoint], name: str) -> bool:
    """Not folders of diffusers: for its loading, the libraries change PyTorch for the whole process."""
    return name in checkpoints and not any(path.is_dir() for path in files_of(checkpoints[name]))


def _load(
    checkpoints: Mapping[str, Checkpoint], name: str, device: torch.device, dtype: torch.dtype
) -> Networks:
    if name not in checkpoints:
        raise CellFailed(f"checkpoint {name!r} is not on this machine")
    return load_checkpoint(checkpoints[name], device, dtype)
