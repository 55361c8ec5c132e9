"""The farm in this process, without Ray: the debugging twin of `farm.cluster.ray_farm`."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from farm.cell import Cell
from farm.cluster.coordinator import Event, render
from farm.cluster.crew import ENDLESS, Reply
from farm.cluster.worker import RendererFactory, Worker
from farm.merges import Checkpoint
from farm.ordering import WaveOf, at_once
from farm.render.device import choose_device
from farm.render.renderer import Renderer

NAME = "inline"

HEARTBEAT = 1.0
"""Seconds that an exchange may take."""


class InlineFarm:
    """Renders on one device of this process. A hang is not looked for: a thread cannot be abandoned.

    Args:
        checkpoints: where the weights of each are that cells may name.
        plugin_folders: as in `Workspace.plugin_folders`.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; the best there is if not given.
        renderer_factory: makes the renderer.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        plugin_folders: Sequence[Path],
        device: str | None = None,
        renderer_factory: RendererFactory = Renderer,
    ) -> None:
        self._crew = _Crew(
            partial(Worker, NAME, checkpoints, plugin_folders, device or choose_device(), renderer_factory)
        )

    def __enter__(self) -> "InlineFarm":
        return self

    def __exit__(self, *exception: object) -> None:
        self._crew.kill(NAME)

    @property
    def workers(self) -> int:
        """One."""
        return len(self._crew.names)

    def render(self, cells: Iterable[Cell], wave_of: WaveOf = at_once) -> Iterator[Event]:
        """Gives one outcome for each cell, as they come; closing it drops what is in flight.

        Args:
            cells: in render order.
            wave_of: as in `farm.cluster.coordinator.Farm`.

        Raises:
            FarmError: the worker broke again and again without finishing anything.
        """
        return render(cells, self._crew, ENDLESS, wave_of=wave_of)


class _Crew:
    """A crew of one."""

    names = (NAME,)

    def __init__(self, make_worker: partial[Worker]) -> None:
        self._make_worker = make_worker
        self._worker: Worker | None = None
        self._call: tuple[Sequence[Cell], bool] | None = None

    def is_running(self, name: str) -> bool:
        return self._worker is not None

    def is_called(self, name: str) -> bool:
        return self._call is not None

    def start(self, name: str) -> None:
        self._worker = self._make_worker()

    def call(self, name: str, cells: Sequence[Cell], more: bool) -> None:
        self._call = (cells, more)

    def wait(self, timeout: float) -> Sequence[Reply]:
        if self._worker is None or self._call is None:
            time.sleep(timeout)
            return ()
        cells, more = self._call
        self._call = None
        return (Reply(NAME, self._worker.exchange(cells, HEARTBEAT, more)),)

    def kill(self, name: str) -> None:
        worker, self._worker, self._call = self._worker, None, None
        if worker is not None:
            worker.close()
