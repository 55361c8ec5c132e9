"""One device at work: a renderer in a thread of its own, and the finishing of its pictures beside it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import PIL.Image

from farm.cell import Cell, Outcome, PluginUse
from farm.chain import Chain
from farm.errors import CellFailed, described
from farm.merges import Checkpoint
from farm.results.infotext import png_bytes
from farm.sampling import Samplers
from farm.work import Work

FINISHING_THREADS = 2
"""Pictures that go through plugins and PNG encoding at once, while the device goes on."""

OUTBOX = 32
"""Pictures that may wait to be fetched; with this many, the device rests."""

WORK_EVERY = 1.0
"""Seconds after which what was done is added up; it is with every picture, too."""

REPORTED_AT_ONCE = 16
"""The most outcomes in one report, so that a report stays within a few tens of megabytes."""


class RenderedCell(Protocol):
    """What a renderer gives back; see `farm.render.renderer.Rendered`."""

    @property
    def cell(self) -> Cell:
        """Which one."""

    @property
    def image(self) -> PIL.Image.Image | None:
        """Its picture; None if it failed."""

    @property
    def error(self) -> str:
        """Why it failed."""

    @property
    def seconds(self) -> float:
        """Its share of the device's time."""

    @property
    def evaluations(self) -> int:
        """Of the model; 0 if it failed."""

    @property
    def remark(self) -> str:
        """What was done otherwise than asked."""


class CellRenderer(Protocol):
    """What a worker asks of a renderer; see `farm.render.renderer.Renderer`."""

    @property
    def hungry(self) -> int:
        """How many more cells it takes now so that its batches stay full."""

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""

    def submit(self, cell: Cell, samplers: Samplers) -> None:
        """Lets a cell wait for its turn; `samplers` are those that it can name."""

    def step(self) -> Sequence[RenderedCell]:
        """Runs one batch; returns the cells that finished by it."""

    def take_work(self) -> Work:
        """What was done since this was last asked."""

    def close(self) -> None:
        """Drops what is in flight and ends its threads."""


RendererFactory = Callable[[Mapping[str, Checkpoint], str], CellRenderer]
"""Makes a renderer from the folder of each checkpoint and the name of a device."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker has to say.

    Attributes:
        outcomes: of cells that are through, each told once.
        hungry: how many more cells it wants.
        progress: batches and cells done so far; stands still when the worker hangs.
        fatal: why it can do nothing any more; empty while it can.
        work: what was done since the last report, the cells of the outcomes included.
    """

    outcomes: tuple[Outcome, ...]
    hungry: int
    progress: int
    fatal: str = ""
    work: Work = Work()


class Worker:
    """Owns one device. `exchange` is called from one thread at a time; everything else is its own affair.

    Args:
        name: stands in the outcomes.
        checkpoints: where the weights of each are that cells may name.
        plugin_folders: as in `Workspace.plugin_folders`.
        device: `cpu`, `cuda`, `cuda:1`, `mps`.
        renderer_factory: makes the renderer, in the thread that will use it.
    """

    def __init__(
        self,
        name: str,
        checkpoints: Mapping[str, Checkpoint],
        plugin_folders: Sequence[Path],
        device: str,
        renderer_factory: RendererFactory,
    ) -> None:
        self._name = name
        self._plugin_folders = tuple(plugin_folders)
        self._chains: dict[tuple[PluginUse, ...], Chain] = {}
        self._chains_lock = threading.Lock()  # its own: plugins take their time to load
        self._changed = threading.Condition()  # guards everything below
        self._inbox: deque[Cell] = deque()
        self._outbox: deque[Outcome] = deque()
        self._finishing = 0
        self._appetite = 0
        self._progress = 0
        self._work = Work()
        self._told = time.monotonic()  # when the work was last taken from the renderer
        self._fatal = ""
        self._closing = False
        self._pool = ThreadPoolExecutor(FINISHING_THREADS, thread_name_prefix=f"{name}-finish")
        self._thread = threading.Thread(
            target=self._run, args=(renderer_factory, checkpoints, device), name=f"{name}-render", daemon=True
        )
        self._thread.start()

    def exchange(self, cells: Sequence[Cell], timeout: float, more: bool = True) -> Report:
        """Hands in cells and waits until there is something to tell.

        Args:
            cells: to be rendered, in this order.
            timeout: seconds after which it reports in any case.
            more: whether hunger is worth telling; False when there is nothing left to give.
        """
        with self._changed:
            self._inbox.extend(cells)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._has_news(more), timeout)
            outcomes = tuple(self._outbox.popleft() for _ in range(min(REPORTED_AT_ONCE, len(self._outbox))))
            self._changed.notify_all()
            # The outcomes that were there before the end are told first.
            fatal = "" if self._outbox or self._finishing else self._fatal
            work, self._work = self._work, Work()
            return Report(outcomes, self._hunger(), self._progress, fatal, work)

    def close(self) -> None:
        """Drops what is in flight and ends the threads, after the current batch."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def _has_news(self, more: bool) -> bool:
        ended = bool(self._fatal) and not self._finishing
        return bool(self._outbox) or ended or (more and self._hunger() > 0)

    def _hunger(self) -> int:
        return 0 if self._fatal else max(0, self._appetite - len(self._inbox))

    def _run(self, factory: RendererFactory, checkpoints: Mapping[str, Checkpoint], device: str) -> None:
        try:
            with closing(factory(checkpoints, device)) as renderer:
                self._publish(renderer, 0)
                while self._collect(renderer):
                    rendered = renderer.step()
                    self._publish(renderer, len(rendered))
                    for each in rendered:
                        self._pool.submit(self._finish, each)
        except BaseException as error:  # told in the next report: this thread has nobody to raise it to
            with self._changed:
                self._fatal = described(error)
                self._changed.notify_all()

    def _collect(self, renderer: CellRenderer) -> bool:
        """Waits for work and room, and submits what has come in; False when the worker is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._may_step(renderer))
            if self._closing:
                return False
            cells = tuple(self._inbox)
            self._inbox.clear()
            self._appetite -= len(cells)
        for cell in cells:
            self._submit(renderer, cell)
        return True

    def _submit(self, renderer: CellRenderer, cell: Cell) -> None:
        """Hands a cell on, or lets it fail by what its plugins lack here."""
        try:
            renderer.submit(cell, self._chain(cell.plugins).samplers)
        except CellFailed as failure:
            with self._changed:
                self._outbox.append(Outcome(cell, "failed", b"", str(failure), 0.0, self._name))
                self._changed.notify_all()

    def _may_step(self, renderer: CellRenderer) -> bool:
        crowded = self._finishing + len(self._outbox) >= OUTBOX
        return not crowded and (bool(self._inbox) or not renderer.idle)

    def _publish(self, renderer: CellRenderer, rendered: int) -> None:
        with self._changed:
            self._appetite = renderer.hungry
            self._finishing += rendered
            self._progress += 1
            if rendered or renderer.idle or time.monotonic() - self._told > WORK_EVERY:
                self._work += renderer.take_work()
                self._told = time.monotonic()
            self._changed.notify_all()

    def _finish(self, rendered: RenderedCell) -> None:
        """Runs in the pool: from picture to outcome, whatever happens."""
        started = time.perf_counter()
        try:
            outcome = self._outcome(rendered, started)
        except CellFailed as failure:
            outcome = self._failure(rendered, str(failure))
        except BaseException as error:  # nobody looks at the future; the cell must not vanish
            outcome = self._failure(rendered, f"finishing the picture: {described(error)}")
        with self._changed:
            self._outbox.append(outcome)
            self._finishing -= 1
            self._progress += 1
            self._changed.notify_all()

    def _outcome(self, rendered: RenderedCell, started: float) -> Outcome:
        if rendered.image is None:
            return self._failure(rendered, rendered.error)
        finished = self._chain(rendered.cell.plugins).finish(rendered.image, rendered.cell)
        counted = replace(rendered.cell, evaluations=rendered.evaluations)
        png = png_bytes(finished.image, counted, {"Remark": rendered.remark} if rendered.remark else None)
        seconds = rendered.seconds + time.perf_counter() - started
        return Outcome(counted, "done", png, "", seconds, self._name, finished.columns, rendered.remark)

    def _failure(self, rendered: RenderedCell, reason: str) -> Outcome:
        return Outcome(rendered.cell, "failed", b"", reason, rendered.seconds, self._name)

    def _chain(self, uses: tuple[PluginUse, ...]) -> Chain:
        with self._chains_lock:
            if uses not in self._chains:
                self._chains[uses] = Chain(uses, self._plugin_folders)
            return self._chains[uses]
