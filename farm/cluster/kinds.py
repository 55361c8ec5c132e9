"""What workers a farm on Ray has: how many, on what device, and what Ray reserves for each."""

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farm.merges import Checkpoint, files_of
from farm.ordering import LOADED_AT_ONCE

MEMORY_OF_A_WORKER = 2**30
"""Bytes that a worker on a CPU takes beside its networks: Python, torch, activations."""

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
"""Environment of a worker on a CPU; two one-thread workers beat one with two threads."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What workers this farm has.

    Attributes:
        names: one for each worker.
        device: what they render on; empty to let each choose.
        options: what Ray reserves for each, as in `ray.actor.ActorClass.options`.
    """

    names: tuple[str, ...]
    device: str
    options: Mapping[str, Any]


def kind_of_workers(resources: Mapping[str, float], workers: int | None, weight: int) -> Kind:
    """Chooses the workers for what Ray has found.

    Args:
        resources: as `ray.cluster_resources` gives them.
        workers: how many are wanted; None for as many as are worth it.
        weight: bytes of the files of the checkpoints that a worker keeps.
    """
    gpus = int(resources.get("GPU", 0))
    if gpus:
        names = _names("gpu", workers or gpus)
        return Kind(names, "cuda", {"num_cpus": 0, "num_gpus": _share(len(names), gpus)})
    cores = max(1, int(resources.get("CPU", 1)))
    if platform.system() == "Darwin":  # Ray knows nothing of its GPU, which one worker fills
        return Kind(_names("mac", workers or 1), "", {"num_cpus": 0})
    # Weights are often stored in half the precision that a CPU computes in.
    memory = resources.get("memory", 0)
    room = int(memory // (MEMORY_OF_A_WORKER + 2 * weight)) if memory and weight else cores
    names = _names("cpu", workers or max(1, min(cores, room)))
    options = {"num_cpus": _share(len(names), cores), "runtime_env": {"env_vars": ONE_THREAD}}
    return Kind(names, "cpu", options)


def weight_of(checkpoints: Mapping[str, Checkpoint]) -> int:
    """Bytes of the files of the largest checkpoints: so many as a worker keeps."""
    return sum(sorted(map(_size, checkpoints.values()))[-LOADED_AT_ONCE:])


def _names(kind: str, number: int) -> tuple[str, ...]:
    return tuple(f"{kind}-{index}" for index in range(number))


def _share(workers: int, devices: int) -> float:
    """What part of a device each worker gets, so that all of them can be placed."""
    return 1 / math.ceil(workers / devices)


def _size(checkpoint: Checkpoint) -> int:
    """A merge is as large as the first of its files."""
    path = files_of(checkpoint)[0]
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())
