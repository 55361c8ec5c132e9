"""The page of all jobs: results/index.html."""

import csv
import html
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from urllib.parse import quote

from farm.results.index import INDEX
from farm.results.page import PAGE, asset, policy
from farm.results.whole import write_whole

_LONGEST_FIELD = 10_000_000
"""Characters in a prompt or reason; the csv module allows 131,072. Beyond it, a quote was never closed."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A job's folder, as its index describes it."""

    folder: str
    counts: Counter[str]
    thumbnail: str
    written: datetime


def write_overview(results: Path) -> Path:
    """Write `results/index.html`: each job with a picture, how far it got and when, the latest first.

    Folders without an index are no jobs, and are left out; a job whose index cannot be read is listed
    without its counts.

    Args:
        results: the folder that holds the jobs' folders.

    Raises:
        FarmError: the page cannot be written.
    """
    jobs = sorted(_jobs(results), key=lambda job: (job.written, job.folder), reverse=True)
    count = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
    style = asset("gallery.css")
    page = Template(asset("overview.html")).substitute(
        policy=policy(style), style=style, count=count, jobs="\n".join(_card(job) for job in jobs)
    )
    path = results / PAGE
    write_whole(path, page.encode(errors="backslashreplace"))
    return path


def _jobs(results: Path) -> Iterator[_Job]:
    for index in results.glob(f"*/{INDEX}"):
        try:
            written = datetime.fromtimestamp(index.stat().st_mtime, UTC)
        except FileNotFoundError:  # somebody removed that job in the meantime
            continue
        yield _Job(index.parent.name, *_counted(index), written)


def _counted(index: Path) -> tuple[Counter[str], str]:
    """How many cells have each status, and the first picture."""
    counts: Counter[str] = Counter()
    thumbnail = ""
    try:
        with index.open(encoding="utf-8", newline="") as lines, _long_fields():
            for row in csv.DictReader(lines):
                counts[row.get("status") or ""] += 1
                thumbnail = thumbnail or row.get("file") or ""
    except (OSError, UnicodeError, csv.Error):
        # Other jobs' folders are other people's: one that was damaged, saved in another encoding or is not
        # ours to read must not cost the run that just ended its own page.
        return Counter(), ""
    return counts, thumbnail


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _card(job: _Job) -> str:
    link = _link(job, PAGE)
    picture = f'<img loading="lazy" alt="" src="{_link(job, job.thumbnail)}">'
    blank = '<div class="blank"></div>'
    counts = ", ".join(f"{job.counts[status]} {status}" for status in sorted(job.counts))
    return (
        f'<li><a href="{link}">{picture if job.thumbnail else blank}<div>'
        f"<strong>{html.escape(job.folder)}</strong><br>{html.escape(counts)}<br>"
        f'<span class="quiet">{job.written:%Y-%m-%d %H:%M} UTC</span></div></a></li>'
    )


def _link(job: _Job, file: str) -> str:
    return quote(os.fsencode(f"{job.folder}/{file}"))  # names of files are bytes, and not always text
