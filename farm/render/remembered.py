"""What runs have found out about a device, kept from one to the next."""

import time
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from farm.cache_file import CacheFile

DAYS = 7
"""After which a limit is tried anew: the memory may have been taken by somebody who has gone."""

MUCH = 1.05
"""How much more a batch must take than was known to be worth noting."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Of one batch key.

    Attributes:
        bytes_a_row: that a batch takes, over its rows; 0 if nobody measured.
        rows: of the batch that was measured.
        most: rows that fit, as out-of-memory has taught; 0 if it never came to that.
        day: when, in days since 1970.
    """

    bytes_a_row: int = 0
    rows: int = 0
    most: int = 0
    day: int = 0


class Remembered:
    """The measures of one kind of device.

    Args:
        device: its name and memory.
        file: JSON, shared by all devices of a user; None keeps nothing.
    """

    def __init__(self, device: str = "", file: Path | None = None) -> None:
        self._device = device
        self._file = CacheFile(file)
        today = _today()
        found = {key: _found(entry) for key, entry in self._file.read().items()}
        self._known = {key: one for key, one in found.items() if one is not None and today - one.day <= DAYS}

    def bytes_a_row(self, batch_key: Hashable) -> int | None:
        """What was measured; None if nothing was."""
        return self._of(batch_key).bytes_a_row or None

    def most(self, batch_key: Hashable) -> int | None:
        """The rows that out-of-memory has left; None if it never came to that."""
        return self._of(batch_key).most or None

    def note(self, batch_key: Hashable, rows: int, taken: int) -> bool:
        """Notes the bytes that a batch took; True if it is news.

        A batch's memory has a part that does not grow with its rows, so the largest batch tells most.
        """
        known, bytes_a_row = self._of(batch_key), -(-taken // rows)
        more = rows == known.rows and bytes_a_row > known.bytes_a_row * MUCH
        if rows <= known.rows and not more:
            return False
        self._keep(batch_key, bytes_a_row=bytes_a_row, rows=rows)
        return True

    def lower(self, batch_key: Hashable, most: int) -> None:
        """Notes that more rows do not fit."""
        self._keep(batch_key, most=most)

    def forget_lowered(self, part: Hashable) -> None:
        """Forgets what did not fit, of all batch keys that have this in them."""
        for key, found in list(self._known.items()):
            if key.startswith(self._key("")) and repr(part) in key:
                self._write(key, replace(found, most=0))

    def _of(self, batch_key: Hashable) -> _Found:
        return self._known.get(self._key(repr(batch_key)), _Found())

    def _keep(self, batch_key: Hashable, **changes: int) -> None:
        self._write(self._key(repr(batch_key)), replace(self._of(batch_key), day=_today(), **changes))

    def _key(self, batch_key: str) -> str:
        return f"{self._device}: {batch_key}"

    def _write(self, key: str, found: _Found) -> None:
        """One entry alone: several workers find out about the same kind of device."""
        self._known[key] = found
        self._file.update({key: asdict(found)})


def _today() -> int:
    return int(time.time() // 86_400)


def _found(entry: Any) -> _Found | None:
    """None of what another version wrote, or what is torn."""
    try:
        found = _Found(**entry)
    except TypeError:
        return None
    return found if all(type(number) is int for number in asdict(found).values()) else None
