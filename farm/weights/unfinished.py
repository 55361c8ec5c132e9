"""Files of weights that appear whole or not at all. Without torch."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from farm.errors import FarmError, described


def check_absent(target: Path) -> None:
    """Sees to it that nothing is overwritten.

    Raises:
        FarmError: there is something.
    """
    if os.path.lexists(target):
        raise FarmError(f"{target}: it is there already, and is not overwritten")


@contextmanager
def finished(target: Path) -> Iterator[Path]:
    """Gives the path of a file to be written, which becomes the target once it is on the disk.

    Raises:
        FarmError: it cannot be written, or the target is there by then; nothing is left of it.
    """
    unfinished = target.parent / f".unfinished-{secrets.token_hex(8)}"
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        if os.path.lexists(target):
            raise FileExistsError("it was made meanwhile")
        unfinished.rename(target)
    except (OSError, SafetensorError) as error:  # a full disk, a folder that is read-only or absent
        raise FarmError(f"{target}: it cannot be written: {described(error)}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
