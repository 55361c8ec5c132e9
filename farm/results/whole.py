"""Files that appear under their name only when they are whole."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from farm.errors import FarmError

TEMPORARY = ".unfinished-"
"""What the names of files begin with that are not whole; a killed process leaves such files behind."""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name when the block ends, and never if the block raises.

    What stood under the name stays there until then. The content is on the disk before it is named.

    Args:
        path: the file's final name; its folder is made if need be.

    Raises:
        FarmError: the disk is full, the folder is read-only, another program holds the file open, ….
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        with _removed_on_failure(unfinished), unfinished.open("xb") as file:
            yield file
            synced(file)
            file.close()  # Windows does not rename an open file
            os.replace(unfinished, path)
        sync_folder(path.parent)
    except OSError as error:
        raise FarmError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, or leave what was there.

    Raises:
        FarmError: as for `whole_file`.
    """
    with whole_file(path) as file:
        file.write(content)


def synced(file: IO[bytes]) -> None:
    """Bring what was written to `file` onto the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` onto the disk, where the system can: Windows and some shares cannot."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed writer left in `folder`; only for the one who holds its lock."""
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
