"""The farm on Ray: a local one that is started and stopped here, or a cluster that is joined."""

import logging
import os
import pkgutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import farm.cluster.ray_environment  # noqa: F401 - Ray reads it when it is imported

# isort: split
import ray
from ray.exceptions import RayError, RayTaskError

from farm.cell import Cell
from farm.cluster.coordinator import Event, render
from farm.cluster.crew import USUAL, Patience, Reply
from farm.cluster.kinds import Kind, kind_of_workers, weight_of
from farm.cluster.worker import Report, Worker
from farm.errors import FarmError, described
from farm.interrupts import uninterrupted
from farm.merges import Checkpoint, resolved
from farm.ordering import WaveOf, at_once

RENDERER = "farm.render.renderer:Renderer"
"""Imported by name and in the workers only, so that the process that leads them never loads torch."""

CHOOSE_DEVICE = "farm.render.device:choose_device"

HEARTBEAT = 2.0
"""Seconds that an exchange may take."""

KNOCK = 10.0
"""Seconds until a cluster's address must answer."""

OBJECT_STORE = 256 * 2**20
"""Bytes of shared memory for a local Ray, for reports and for pictures to start from; more goes to disk."""


class RayFarm:
    """Renders with one worker per GPU, or else with one-thread workers on the CPUs.

    Workers read checkpoints and plugins from the paths given, so every node must have them there. Pictures
    to start from are among the options and go to the nodes; pictures come back through Ray. Leaving the
    context ends all workers, and Ray too if it was started here.

    Args:
        checkpoints: where the weights of each are that cells may name.
        plugin_folders: as in `Workspace.plugin_folders`.
        address: of a Ray cluster to join; RAY_ADDRESS if not given; a local Ray if neither is there.
        workers: how many; as many as the GPUs, or the cores and the memory allow, if not given.
        patience: how long a worker may make no progress.
        renderer: `module:name` of what makes the renderer, as `farm.cluster.worker.RendererFactory`.
        options: handed to it by their names.
        debug: whether Ray's own messages and the workers' output are shown.

    Raises:
        FarmError: on entering, when Ray cannot be started or joined.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        plugin_folders: Sequence[Path],
        address: str | None = None,
        workers: int | None = None,
        patience: Patience = USUAL,
        renderer: str = RENDERER,
        options: Mapping[str, Any] | None = None,
        debug: bool = False,
    ) -> None:
        self._checkpoints = {name: resolved(checkpoint) for name, checkpoint in checkpoints.items()}
        self._plugin_folders = tuple(Path(folder).resolve() for folder in plugin_folders)
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._workers = workers
        self._patience = patience
        self._renderer = renderer
        self._options = dict(options or {})
        self._debug = debug
        self._started_ray = False
        self._crew: _Crew | None = None

    def __enter__(self) -> "RayFarm":
        try:
            if not ray.is_initialized():
                self._started_ray = True
                _start_ray(self._address, self._debug)
            resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
            kind = kind_of_workers(resources, self._workers, weight_of(self._checkpoints))
            options, self._options = ray.put(self._options), {}  # once for all: it may have many pictures
            arguments = (self._checkpoints, self._plugin_folders, kind.device, self._renderer, options)
            self._crew = _Crew(kind, arguments)
            for name in kind.names:  # they import torch while the command does whatever else it has to
                self._crew.start(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._crew is not None:
            self._crew.close()
        if self._started_ray:
            ray.shutdown()

    @property
    def workers(self) -> int:
        """How many it has, whether there is work for all of them or not; 0 while it is not open."""
        return len(self._crew.names) if self._crew else 0

    def render(self, cells: Iterable[Cell], wave_of: WaveOf = at_once) -> Iterator[Event]:
        """Gives one outcome for each cell, as they come; closing it drops what is in flight.

        Args:
            cells: in render order.
            wave_of: as in `farm.cluster.coordinator.Farm`.

        Raises:
            FarmError: no worker is left, or none could be had for a long time.
        """
        if self._crew is None:
            raise FarmError("the farm is not open")
        return render(cells, self._crew, self._patience, wave_of=wave_of)


def _start_ray(address: str, debug: bool) -> None:
    local: dict[str, Any] = {}
    what = f"cannot join the Ray cluster at {address}"
    if address == "local":
        local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
        what = "cannot start Ray"
    level = logging.INFO if debug else logging.ERROR
    try:
        _knock(address)
        # what has begun of a Ray of our own would end the process with a crash
        with uninterrupted() if local else nullcontext():
            ray.init(address=address, log_to_driver=debug, logging_level=level, **local)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        raise FarmError(f"{what}: {_lines(error)[0]}") from error


def _knock(address: str) -> None:
    """Raises OSError if nobody listens at `host:port`: Ray itself would go on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(
        self,
        name: str,
        checkpoints: Mapping[str, Checkpoint],
        folders: Sequence[Path],
        device: str,
        renderer: str,
        options: Mapping[str, Any],
    ) -> None:
        factory = partial(pkgutil.resolve_name(renderer), **options)
        device = device or pkgutil.resolve_name(CHOOSE_DEVICE)()
        self._worker = Worker(name, checkpoints, folders, device, factory)

    def exchange(self, cells: Sequence[Cell], more: bool) -> Report:
        return self._worker.exchange(cells, HEARTBEAT, more)


class _Crew:
    """Actors by name. A dead one is never restarted by Ray: its place gets a new one with a new identity."""

    def __init__(self, kind: Kind, arguments: Sequence[object]) -> None:
        self.names = kind.names
        self._arguments = arguments
        self._actor_class: Any = ray.remote(_Actor).options(
            max_restarts=0, max_task_retries=0, **kind.options
        )
        self._actors: dict[str, Any] = {}
        self._calls: dict[Any, str] = {}  # the reference of an answer to come → who was called

    def is_running(self, name: str) -> bool:
        return name in self._actors

    def is_called(self, name: str) -> bool:
        return name in self._calls.values()

    def start(self, name: str) -> None:
        self._actors[name] = self._actor_class.remote(name, *self._arguments)

    def call(self, name: str, cells: Sequence[Cell], more: bool) -> None:
        self._calls[self._actors[name].exchange.remote(tuple(cells), more)] = name

    def wait(self, timeout: float) -> Sequence[Reply]:
        if not self._calls:
            time.sleep(timeout)
            return ()
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout)
        return [_reply(self._calls.pop(call), call) for call in ready]

    def kill(self, name: str) -> None:
        self._calls = {call: called for call, called in self._calls.items() if called != name}
        actor = self._actors.pop(name, None)
        if actor is not None and ray.is_initialized():
            ray.kill(actor)

    def close(self) -> None:
        for name in tuple(self._actors):
            self.kill(name)


def _reply(name: str, call: Any) -> Reply:
    try:
        return Reply(name, ray.get(call))
    except RayError as error:
        return Reply(name, None, _cause(error))


def _cause(error: RayError) -> str:
    """Why a call failed, in one line: Ray's messages are a screenful, and say it at the end."""
    if isinstance(error, RayTaskError):
        return described(error.cause)
    lines = _lines(error)
    if "creation task" in lines[0]:
        return f"it could not start: {lines[-1]}"
    if "connection error" in str(error):
        return "its process was killed or crashed (out of memory, or a fault in a library)"
    detail = next((line for line in lines if "exit detail:" in line), "")
    return detail.partition("exit detail:")[2].strip() or f"{type(error).__name__}: {lines[0]}"


def _lines(error: Exception) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
