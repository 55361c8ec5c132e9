"""Content hashes of what lies in models/, remembered by path, size and time of change."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from farm.cache_file import CacheFile, cache_path

HASHED_SUFFIXES = {".safetensors", ".json", ".txt", ".bin"}
"""What a loader reads of a diffusers folder; a changed README does not make another model."""


def content_files(path: Path) -> list[Path]:
    """The files that make it what it is, in a fixed order: a file itself, or of a diffusers folder some."""
    if not path.is_dir():
        return [path]
    files = (file for file in path.rglob("*") if file.suffix in HASHED_SUFFIXES and file.is_file())
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


class Hashes:
    """Content hashes of files and folders.

    Args:
        cache: the JSON file that remembers them; by default in the user's cache folder.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = CacheFile(cache or cache_path("hashes.json"))
        read = self._cache.read()
        self._known = {stamp: known for stamp, known in read.items() if isinstance(known, str)}

    def of(self, path: Path) -> str:
        """SHA-256 in hex of a file, or over the names and contents of a diffusers folder.

        What is not known is read.
        """
        files = content_files(path)
        unknown = [file for file in files if stamp(file) not in self._known]
        found = {stamp(file): _sha256(file) for file in unknown}
        self._known.update(found)
        if found:
            self._cache.update(found)
        return self._combined(path, files)

    def known(self, path: Path) -> str:
        """The same without reading anything; empty if some file was not hashed before."""
        files = content_files(path)
        return self._combined(path, files) if all(stamp(file) in self._known for file in files) else ""

    def _combined(self, path: Path, files: Iterable[Path]) -> str:
        if not path.is_dir():
            return self._known[stamp(path)]
        lines = [f"{file.relative_to(path).as_posix()} {self._known[stamp(file)]}\n" for file in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def stamp(file: Path) -> str:
    """Names a file and its state: equal as long as nobody writes to it."""
    status = file.stat()
    return f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
