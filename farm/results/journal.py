"""The truth about attempts and failures: one line of JSON for each outcome, appended and synced."""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import TypeAdapter, ValidationError

from farm.cell import Cell, Scalar
from farm.errors import FarmError
from farm.results.whole import sync_folder, synced

JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about the picture with one key.

    Attributes:
        key: of the cell, as in `Cell.key`.
        number: of the cell when it was rendered.
        status: `done` with a picture, or `failed` with an error.
        file: the picture, relative to the job's folder, with `/`; empty without a picture.
        size: of that file, in bytes.
        error: one line, what failed and why.
        seconds: the cell's share of its device's time plus its own post-processing.
        worker: who rendered it.
        finished: when, in UTC (ISO 8601).
        attempts: how often it was tried, this one included.
        columns: what plugins found out.
        evaluations: of the model, as counted; None if it failed; journals of before may have 0 or nothing.
        remark: what was done otherwise than asked; empty if nothing was.
        scores: the uses of scoring plugins that the columns have the answers of, as `PluginUse.identity`.
    """

    key: str
    number: int
    status: Literal["done", "failed"]
    file: str = ""
    size: int = 0
    error: str = ""
    seconds: float = 0.0
    worker: str = ""
    finished: str = ""
    attempts: int = 1
    evaluations: int | None = None
    remark: str = ""
    columns: Mapping[str, Scalar] = field(default_factory=dict)
    scores: Sequence[str] = ()

    def evaluations_of(self, cell: Cell) -> int:
        """Of the model: as counted where that is known, or else as planned."""
        return cell.evaluations if self.evaluations is None else self.evaluations


_RECORDS = TypeAdapter(Record)


class Journal:
    """Appends records; one writer at a time, whom the store's lock makes sure of.

    Args:
        path: of the file; made if need be, and cut back to its last whole line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - it lives as long as the store
            self._file.truncate(_whole_length(self._file))
            sync_folder(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error

    def append(self, record: Record) -> None:
        """Write one record; it is on the disk when this returns, and no part of it is if this raises.

        Raises:
            FarmError: the disk is full, or gone.
        """
        before = os.fstat(self._file.fileno()).st_size
        try:
            line = _line(record)
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            synced(self._file)
        except OSError as error:
            self._file.truncate(before)
            raise _unwritable(self._path, error) from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def read_journal(path: Path) -> dict[str, Record]:
    """The last record of each key.

    Lines that are not whole (the last one, after a crash; damaged ones, after a power cut) or not of a
    record's types count as if they had never been written: their cells are rendered again. Keys that a
    newer farm has added are left out.

    Args:
        path: of the journal; need not exist.
    """
    records: dict[str, Record] = {}
    for entry in _entries(path):
        records[entry.key] = entry
    return records


def _entries(path: Path) -> Iterator[Record]:
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            record = _record(line)
            if record is not None:
                yield record


def _record(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return _RECORDS.validate_json(line, strict=True)
    except ValidationError:
        return None


def _line(record: Record) -> bytes:
    entry = {name: getattr(record, name) for name in Record.__slots__}
    entry["columns"] = dict(record.columns)
    text = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="replace") + b"\n"  # half a surrogate pair could be written, but not read again


def _whole_length(file: BinaryIO) -> int:
    """How many bytes of the file end in a newline."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _unwritable(path: Path, error: OSError) -> FarmError:
    return FarmError(f"{path}: cannot be written: {error.strerror or error}")
