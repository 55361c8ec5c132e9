"""How long it takes: what runs have measured, kept for the plans that come after them."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from farm.cache_file import CacheFile, cache_path
from farm.work import Kind, Needs, Size, Work, total

MOST = {"row": 10_000, "picture": 1000, "encoding": 1000, "text": 1000, "load": 10}
"""What is measured, and how many of it from earlier runs count against those of a new one."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long something may take.

    Attributes:
        seconds: of rendering.
        workers: that it is reckoned with.
        device: that they have; several are joined by `and`.
        measured: the oldest day of the rates that it goes by (ISO 8601).
    """

    seconds: float
    workers: int
    device: str
    measured: str


@dataclass(frozen=True, slots=True)
class _Rate:
    """Of one kind of work on one device.

    Attributes:
        seconds: of a worker for each, with all that comes beside it.
        count: that it was measured with.
        workers: with this device, of the run that measured it.
        day: when (ISO 8601).
    """

    seconds: float
    count: float
    workers: int
    day: str

    def followed_by(self, later: "_Rate", most: float) -> "_Rate":
        """The mean of both by their counts, at most so many of the earlier; a small run says little."""
        old, new = min(self.count, most), later.count
        mean = (self.seconds * old + later.seconds * new) / (old + new)
        return replace(later, seconds=mean, count=old + new)


class _Key(NamedTuple):
    """What a rate is of.

    Attributes:
        what: of `MOST`.
        whose: pictures of a size by a checkpoint, or its networks.
        device: its name.
    """

    what: str
    whose: str
    device: str


_Crew = dict[str, int]
"""How many workers each device has."""

_LAST = "last run in "
"""Before a folder, in the file: what that run had for devices."""

_BETWEEN = " | "
"""The parts of a key, in the file."""


class Rates:
    """What was measured, by device, checkpoint, precision and size.

    Args:
        file: JSON; in the user's cache folder if not given.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = CacheFile(file or cache_path("rates.json"))
        self._known: dict[_Key, _Rate] = {}
        self._last: dict[str, _Crew] = {}
        for name, entry in self._file.read().items():
            parts = name.split(_BETWEEN, 2)
            if name.startswith(_LAST):
                self._last[name.removeprefix(_LAST)] = _crew(entry)
            elif len(parts) == 3 and (rate := _rate(entry)) is not None:
                self._known[_Key(*parts)] = rate

    def note(
        self, works: Iterable[Work], hashes: Mapping[str, str], place: str, workers: int | None = None
    ) -> None:
        """Keeps what a run has measured, beside what was known.

        Args:
            works: of each worker.
            hashes: SHA-256 of each checkpoint by its name.
            place: the folder that it was run in.
            workers: that there were; some may have had nothing to do. As many as worked, if not given.
        """
        by_device: dict[str, list[Work]] = {}
        for work in works:
            if work.tallies:
                by_device.setdefault(work.device, []).append(work)
        if not by_device:
            return
        crew = {device: len(group) for device, group in by_device.items()}
        self._last[place] = crew = self._whole(crew, workers or 0, place)
        entries: dict[str, Any] = {_LAST + place: crew}
        for device, group in by_device.items():
            for what, whose, rate in _measured(total(group), crew[device], hashes):
                key = _Key(what, whose, device)
                known = self._known.get(key)
                self._known[key] = rate if known is None else known.followed_by(rate, MOST[what])
                entries[_BETWEEN.join(key)] = asdict(self._known[key])
        self._file.update(entries)

    def _whole(self, crew: _Crew, workers: int, place: str) -> _Crew:
        """With those that had nothing to do: nobody asked on what they would have done it."""
        if sum(crew.values()) >= workers:
            return crew
        if len(crew) == 1:
            return dict.fromkeys(crew, workers)
        before = self._last.get(place, {})
        return before if crew.keys() <= before.keys() and sum(before.values()) == workers else crew

    def estimate(self, needs: Needs, hashes: Mapping[str, str], place: str) -> Estimate | None:
        """How long it may take with the devices of the last run here, or else with others that are known.

        None if rows or pictures of some size were never measured; starting workers is not counted.

        Args:
            needs: what is to be rendered.
            hashes: SHA-256 of each checkpoint by its name, as far as known.
            place: the folder that it will be run in.
        """
        counts = _counts(needs, hashes)
        needed = [key for key in counts if key[0] in ("row", "picture")]
        for crew in self._crews(place, needed):
            rates = [self._known.get(_Key(*key, device)) for device in crew for key in needed]
            days = [rate.day for rate in rates if rate is not None]
            if len(days) == len(rates):
                speed = sum(1 / self._seconds(counts, *one) for one in crew.items())
                return Estimate(1 / speed, sum(crew.values()), " and ".join(crew), min(days))
        return None

    def _crews(self, place: str, needed: Collection[tuple[str, str]]) -> Iterator[_Crew]:
        """The last one here; then, the newest first, devices that something of it was measured on."""
        if needed and (crew := self._last.get(place)):
            yield crew
        known = [
            (rate.day, key.device, rate.workers) for key, rate in self._known.items() if key[:2] in needed
        ]
        yield from ({device: workers} for _, device, workers in sorted(known, reverse=True))

    def _seconds(self, counts: Mapping[tuple[str, str], float], device: str, workers: int) -> float:
        """Of workers with a device, who share all but this: each loads at least once. A picture is one's."""
        pictures = sum(count for (what, _), count in counts.items() if what == "picture")
        workers = max(1, min(workers, round(pictures) or workers))
        loads = sum(count for (what, _), count in counts.items() if what == "load")
        seconds = 0.0
        for (what, whose), count in counts.items():
            if (rate := self._known.get(_Key(what, whose, device))) is not None:
                rounds = max(1.0, workers / (loads or 1)) if what == "load" else 1.0
                seconds += rate.seconds * count * rounds / workers
        return seconds


def _counts(needs: Needs, hashes: Mapping[str, str]) -> Mapping[tuple[str, str], float]:
    """How many of what, and whose; checkpoints of equal content count together."""
    counts: defaultdict[tuple[str, str], float] = defaultdict(float)
    for size, need in needs.sizes.items():
        whose = _of_size(hashes.get(size.model, ""), size)
        counts["row", whose] += need.rows
        counts["picture", whose] += need.pictures
        if need.encodings:
            counts["encoding", whose] += need.encodings
    for what, numbers in (("load", needs.loads), ("text", needs.texts)):
        for networks, number in numbers.items():
            counts[what, _of_networks(hashes.get(networks.model, ""), networks.precision)] += number
    return counts


def _measured(work: Work, workers: int, hashes: Mapping[str, str]) -> Iterator[tuple[str, str, _Rate]]:
    """What was measured, whose it is, and its rate."""
    busy = work.of("predict").seconds + work.of("decode").seconds
    beside = (busy + work.waiting + max(0.0, work.between)) / busy if busy else 1.0
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    counts = seconds.copy()
    for kind, tally in work.tallies.items():
        measured = {
            "predict": ("row", tally.rows * kind.weight, beside),
            "decode": ("picture", tally.rows, beside),
            "encode image": ("encoding", tally.rows, 1.0),
            "encode text": ("text", tally.rows, 1.0),
            "load": ("load", tally.calls, 1.0),
        }.get(kind.request)
        if measured is not None and (model := hashes.get(kind.model)):
            what, count, share = measured
            whose = _of_size(model, kind) if kind.width else _of_networks(model, kind.precision)
            seconds[what, whose] += tally.seconds * share
            counts[what, whose] += count
    today = datetime.now(UTC).date().isoformat()
    for (what, whose), count in counts.items():
        if count and seconds[what, whose]:
            yield what, whose, _Rate(seconds[what, whose] / count, count, workers, today)


def _of_networks(model: str, precision: str) -> str:
    """By content: files of one name can be others elsewhere."""
    return f"{model[:16]} {precision}"


def _of_size(model: str, size: Size | Kind) -> str:
    return f"{_of_networks(model, size.precision)} {size.width}x{size.height}"


def _rate(entry: Any) -> _Rate | None:
    """None of an entry that another version wrote, or that is torn."""
    try:
        rate = _Rate(**entry)
        is_right = 0 < rate.seconds < math.inf and 0 < rate.count < math.inf and rate.workers > 0
    except TypeError:
        return None
    return rate if is_right and isinstance(rate.day, str) else None


def _crew(entry: Any) -> _Crew:
    """Empty of an entry that is torn."""
    entry = entry if isinstance(entry, dict) else {}
    return {device: workers for device, workers in entry.items() if type(workers) is int and workers > 0}
