"""How long it takes: what runs have measured, kept for the plans that come after them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from farm.cache_file import CacheFile, cache_path
from farm.work import Kind, Need, Size, Tally, Work

MOST = 10_000
"""Rows of earlier runs that count against those of a new one."""


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
        rows: that it was measured with, at most `MOST`.
        workers: of the run that measured it.
        day: when (ISO 8601).
    """

    row: float
    picture: float
    rows: int
    workers: int
    day: str

    def followed_by(self, later: "_Rate") -> "_Rate":
        """The mean of both by their rows; a small run says little."""
        old, new = min(self.rows, MOST), later.rows

        def mean(before: float, after: float) -> float:
            return (before * old + after * new) / (old + new)

        row, picture = mean(self.row, later.row), mean(self.picture, later.picture)
        return replace(later, row=row, picture=picture, rows=old + new)


class Rates:
    """What was measured, by checkpoint, precision and size.

    Args:
        file: JSON; in the user's cache folder if not given.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = CacheFile(file or cache_path("rates.json"))
        self._known = {key: rate for key, entry in self._file.read().items() if (rate := _rate(entry))}

    def note(self, work: Work, hashes: Mapping[str, str], workers: int) -> None:
        """Keeps what a run has measured, beside what was known.

        Args:
            work: of all workers together.
            hashes: SHA-256 of each checkpoint by its name.
            workers: how many there were.
        """
        busy = sum(tally.seconds for tally in work.tallies.values())
        beside = (busy + work.waiting + work.between) / busy if busy else 1.0
        today, found = datetime.now(UTC).date().isoformat(), list[str]()
        for size, rows in _by_size(work, "predict").items():
            pictures = _by_size(work, "decode").get(size, Tally())
            if size.model in hashes and pictures.rows:
                row, picture = (tally.seconds / tally.rows * beside for tally in (rows, pictures))
                rate, key = _Rate(row, picture, rows.rows, workers, today), _key(size, hashes)
                self._known[key] = self._known[key].followed_by(rate) if key in self._known else rate
                found.append(key)
        self._file.update({key: asdict(self._known[key]) for key in found})

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
    """None of an entry that another version wrote, or that is torn."""
    try:
        rate = _Rate(**entry)
        return rate if min(rate.row, rate.picture, rate.rows, rate.workers) > 0 else None
    except TypeError:
        return None
