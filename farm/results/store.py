"""A job's folder under results/: one writer, and nothing in it that is half there."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from farm.cell import Cell, Outcome, Scalar
from farm.errors import FarmError
from farm.plan import Plan
from farm.results.columns import columns_of
from farm.results.index import write_index
from farm.results.journal import JOURNAL, Journal, Record, read_journal
from farm.results.names import picture_name
from farm.results.whole import remove_unfinished, write_whole

IMAGES = "images"
_LOCK = ".lock"


def read_records(folder: Path) -> dict[str, Record]:
    """What is known about each key, from a job's folder that anybody may be writing to.

    Only records whose picture lies there whole are `done`; others of that kind are left out.
    """
    records = read_journal(folder / JOURNAL)
    sizes = _sizes(folder / IMAGES)
    return {key: record for key, record in records.items() if _holds(record, sizes)}


def done_in(folder: Path) -> set[str]:
    """The keys whose pictures lie whole in a job's folder."""
    return {key for key, record in read_records(folder).items() if record.status == "done"}


def _sizes(images: Path) -> dict[str, int]:
    if not images.is_dir():
        return {}
    sizes = {}
    with os.scandir(images) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # the writer has just given it its name, or removed it
                sizes[f"{IMAGES}/{entry.name}"] = entry.stat().st_size
    return sizes


def _holds(record: Record, sizes: dict[str, int]) -> bool:
    return record.status == "failed" or (record.size > 0 and sizes.get(record.file) == record.size)


class Store:
    """The one writer of a job's folder.

    Use it as a context manager; while it is open, no other process can open the same folder.

    Args:
        folder: of the job's results; made if need be.
        plan: the whole plan, with final keys.

    Raises:
        FarmError: another process is writing there, or the folder cannot be written.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self._plan = plan
        self._lock = _locked(folder)
        try:
            remove_unfinished(folder)
            remove_unfinished(folder / IMAGES)
            self._journal = Journal(folder / JOURNAL)
            self._records = read_records(folder)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write to the folder."""
        self._journal.close()
        self._lock.release()

    def records(self) -> dict[str, Record]:
        """What is known about the plan's cells, by key; a key without a record is pending."""
        wanted = {cell.key for cell in self._plan.cells}
        return {key: record for key, record in self._records.items() if key in wanted}

    def done(self) -> dict[str, Record]:
        """The records of the plan's pictures that are there; failed cells are to be tried again."""
        return {key: record for key, record in self.records().items() if record.status == "done"}

    def write(self, outcome: Outcome) -> Record:
        """Keep an outcome: its picture first, its line in the journal after it.

        A cell whose picture is there already keeps that picture, whatever a second attempt came to.

        Returns:
            What is known about the cell now.

        Raises:
            FarmError: the disk is full, or gone; nothing of this outcome counts then.
        """
        known = self._records.get(outcome.cell.key)
        if known is not None and known.status == "done":
            return known
        record = replace(self._record(outcome), attempts=known.attempts + 1 if known else 1)
        if record.file:
            write_whole(self.folder / record.file, outcome.png)
        self._journal.append(record)
        self._records[record.key] = record
        return record

    def add_scores(self, cell: Cell, columns: Mapping[str, Scalar]) -> None:
        """Keep scores of a picture that is there already; the cell's scores are complete with them.

        Args:
            cell: whose picture it is.
            columns: of all scores that the cell asks for and the picture lacked.

        Raises:
            FarmError: the disk is full, or gone.
        """
        known = self._records[cell.key]
        record = replace(known, columns={**columns_of(cell, known), **columns}, scores=_scores(cell))
        self._journal.append(record)
        self._records[cell.key] = record

    def _record(self, outcome: Outcome) -> Record:
        done = outcome.status == "done"
        return Record(
            key=outcome.cell.key,
            number=outcome.cell.number,
            status=outcome.status,
            file=f"{IMAGES}/{picture_name(outcome.cell, self._plan.axes)}" if done else "",
            size=len(outcome.png) if done else 0,
            error=" ".join(outcome.error.split()),
            seconds=round(outcome.seconds, 4),
            worker=outcome.worker,
            evaluations=outcome.cell.evaluations if done else None,
            remark=outcome.remark,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            columns=dict(outcome.columns),
            scores=_scores(outcome.cell) if done else (),
        )

    def write_job(self) -> Path:
        """Write the job as run, `job.yaml`."""
        path = self.folder / "job.yaml"
        write_whole(path, self._plan.job_yaml.encode())
        return path

    def write_index(self) -> Path:
        """Write the table of the whole plan, `index.csv`."""
        return write_index(self._plan, self._records, self.folder)


def _scores(cell: Cell) -> list[str]:
    return [use.identity for use in cell.plugins if not use.touches_pixels]


def _locked(folder: Path) -> FileLock:
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FarmError(f"{folder}: another farm is writing there; wait for it to end, or stop it") from error
    except OSError as error:
        raise FarmError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return lock
