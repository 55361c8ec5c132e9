"""How long it takes: what runs have measured, kept for the plans that come after them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from farm.cache_file import CacheFile, cache_path
from farm.work import Kind, Need, Size, Tally, Work


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long something may take.

    Attributes:
        seconds: of rendering.
        workers: that it is reckoned with.
        measured: the oldest day of the rates that it goes by (ISO 8601).
    """

    seconds: float
    workers: int
    measured: str


@dataclass(frozen=True, slots=True)
class _Rate:
    """Of pictures of a size by a checkpoint.

    Attributes:
        row: seconds of a worker for a row of the UNet, with all that comes beside it.
        picture: seconds of a worker for decoding a picture.
        workers: of the run that measured it.
        day: when (ISO 8601).
    """

    row: float
    picture: float
    workers: int
    day: str


class Rates:
    """What was measured, by checkpoint, precision and size.

    Args:
        file: JSON; in the user's cache folder if not given.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = CacheFile(file or cache_path("rates.json"))
        self._known = {key: rate for key, entry in self._file.read().items() if (rate := _rate(entry))}

    def note(self, work: Work, hashes: Mapping[str, str], workers: int) -> None:
        """Keeps what a run has measured, in place of what was known.

        Args:
            work: of all workers together.
            hashes: SHA-256 of each checkpoint by its name.
            workers: how many there were.
        """
        busy = sum(tally.seconds for tally in work.tallies.values())
        beside = (busy + work.waiting + work.between) / busy if busy else 1.0
        today = datetime.now(UTC).date().isoformat()
        for size, rows in _by_size(work, "predict").items():
            pictures = _by_size(work, "decode").get(size, Tally())
            if size.model in hashes and pictures.rows:
                row, picture = (tally.seconds / tally.rows * beside for tally in (rows, pictures))
                self._known[_key(size, hashes)] = _Rate(row, picture, workers, today)
        self._file.update({key: asdict(rate) for key, rate in self._known.items()})

    def estimate(self, needs: Mapping[Size, Need], hashes: Mapping[str, str]) -> Estimate | None:
        """How long it may take, with as many workers as measured it; None if something never was.

        Args:
            needs: what is to be rendered.
            hashes: SHA-256 of each checkpoint by its name, as far as known.
        """
        rates = {size: self._known.get(_key(size, hashes)) for size in needs}
        found = {size: rate for size, rate in rates.items() if rate is not None}
        if not needs or len(found) < len(needs):
            return None
        return Estimate(
            sum((need.rows * found[size].row + need.pictures * found[size].picture) / found[size].workers
                for size, need in needs.items()),
            min(rate.workers for rate in found.values()),
            min(rate.day for rate in found.values()),
        )  # fmt: skip


def _by_size(work: Work, request: str) -> dict[Size, Tally]:
    found: dict[Size, Tally] = {}
    for kind, tally in work.tallies.items():
        if kind.request == request and not kind.approximation:
            found[_size(kind)] = found.get(_size(kind), Tally()) + tally
    return found


def _size(kind: Kind) -> Size:
    return Size(kind.model, kind.precision, kind.width, kind.height)


def _key(size: Size, hashes: Mapping[str, str]) -> str:
    """By content: files of one name can be others elsewhere."""
    return f"{hashes.get(size.model, '')[:16]} {size.precision} {size.width}x{size.height}"


def _rate(entry: Any) -> _Rate | None:
    """None of an entry that another version wrote."""
    try:
        return _Rate(**entry)
    except TypeError:
        return None
