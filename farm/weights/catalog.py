"""What lies in models/: found by looking at names and small files, never by loading weights."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.cache_file import CacheFile, cache_path
from farm.errors import FarmError, described

CHECKPOINT_FOLDER = "Stable-diffusion"
"""A1111's name for the folder of checkpoints."""

INDEX = "model_index.json"
"""The file that makes a folder a diffusers pipeline."""

SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
UNET_CONFIG = "unet/config.json"

HASHED_SUFFIXES = {".safetensors", ".json", ".txt", ".bin"}
"""What a loader reads of a diffusers folder; a changed README does not make another model."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that jobs can name.

    Attributes:
        name: its path below the checkpoint folder, with `/`.
        path: a diffusers folder.
        pipeline: the class in its `model_index.json`; empty if that cannot be read.
        size: of its files, in bytes.
        fault: one line, why it cannot be used; empty if nothing is wrong.
    """

    name: str
    path: Path
    pipeline: str
    size: int
    fault: str = ""


def find_checkpoints(model_folders: Sequence[Path]) -> dict[str, Checkpoint]:
    """Every diffusers folder below `Stable-diffusion/` of the model folders, by name; earlier folders win.

    A broken one is found too, with its fault: it is nobody's concern who does not name it.
    """
    found: dict[str, Checkpoint] = {}
    for folder in model_folders:
        root = folder / CHECKPOINT_FOLDER
        for path in _diffusers_folders(root):
            name = path.relative_to(root).as_posix() if path != root else root.name
            if name not in found:
                found[name] = _read_checkpoint(name, path)
    return found


def _diffusers_folders(root: Path) -> Iterator[Path]:
    """Folders that hold a pipeline, sorted; links are followed, but each folder is entered once."""
    seen: set[str] = set()
    for name, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        if INDEX in files:
            yield Path(name)
        if INDEX in files or os.path.realpath(name) in seen:
            folders.clear()
        seen.add(os.path.realpath(name))


def _read_checkpoint(name: str, folder: Path) -> Checkpoint:
    pipeline = fault = ""
    try:
        pipeline = pipeline_of(folder)
    except FarmError as error:
        fault = str(error)
    size = sum(file.stat().st_size for file in content_files(folder))
    return Checkpoint(name=name, path=folder, pipeline=pipeline, size=size, fault=fault)


def pipeline_of(folder: Path) -> str:
    """The class of pipeline that a diffusers folder says it is.

    Raises:
        FarmError: if its `model_index.json` cannot be read or does not say.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FarmError(f"{INDEX} cannot be read: {described(error)}") from error
    pipeline = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(pipeline, str) or not pipeline:
        raise FarmError(f"{INDEX} is not that of a diffusers folder: it names no _class_name")
    return pipeline


def scheduler_config_of(folder: Path) -> dict[str, Any]:
    """The `scheduler/scheduler_config.json` of a diffusers folder.

    Raises:
        FarmError: if it cannot be read.
    """
    return _config(folder, SCHEDULER_CONFIG)


def skip_connections_of(folder: Path) -> int:
    """How many skip connections the UNet of a diffusers folder has.

    Raises:
        FarmError: if its `unet/config.json` cannot be read, or does not say.
    """
    config = _config(folder, UNET_CONFIG)
    try:
        levels, layers = len(config["down_block_types"]), config["layers_per_block"]
        return levels + (layers * levels if isinstance(layers, int) else sum(layers))
    except (KeyError, TypeError) as error:
        raise FarmError(f"{UNET_CONFIG} does not say what blocks there are: {described(error)}") from error


def _config(folder: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FarmError(f"{name} cannot be read: {described(error)}") from error
    if not isinstance(config, dict):
        raise FarmError(f"{name} is not a mapping")
    return config


def content_files(folder: Path) -> list[Path]:
    """The files that make a diffusers folder what it is, in a fixed order."""
    files = (file for file in folder.rglob("*") if file.suffix in HASHED_SUFFIXES and file.is_file())
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


class Hashes:
    """Content hashes of files, remembered by path, size and time of change.

    Args:
        cache: the JSON file that remembers them; by default in the user's cache folder.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = CacheFile(cache or cache_path("hashes.json"))
        read = self._cache.read()
        self._known = {stamp: known for stamp, known in read.items() if isinstance(known, str)}

    def of(self, folder: Path) -> str:
        """SHA-256 in hex over the names and contents of a diffusers folder, reading what is not known."""
        files = content_files(folder)
        unknown = [file for file in files if _stamp(file) not in self._known]
        found = {_stamp(file): _sha256(file) for file in unknown}
        self._known.update(found)
        if found:
            self._cache.update(found)
        return self._combined(folder, files)

    def known(self, folder: Path) -> str:
        """The same without reading anything; empty if some file was not hashed before."""
        files = content_files(folder)
        return self._combined(folder, files) if all(_stamp(file) in self._known for file in files) else ""

    def _combined(self, folder: Path, files: Iterable[Path]) -> str:
        lines = [f"{file.relative_to(folder).as_posix()} {self._known[_stamp(file)]}\n" for file in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_all(checkpoints: Mapping[str, Checkpoint], names: Iterable[str], hashes: Hashes) -> dict[str, str]:
    """The content hash of each named checkpoint."""
    return {name: hashes.of(checkpoints[name].path) for name in dict.fromkeys(names)}


def _stamp(file: Path) -> str:
    status = file.stat()
    return f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
