"""The page of all jobs: results/index.html."""

import csv
import html
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from urllib.parse import quote

from farm.results.index import INDEX
from farm.results.page import PAGE, asset, policy
from farm.results.whole import write_whole


@dataclass(frozen=True, slots=True)
class _Job:
    """A job's folder, as its index describes it."""

    folder: str
    counts: Counter[str]
    thumbnail: str
    written: datetime


def write_overview(results: Path) -> Path:
    """Write `results/index.html`: each job with a picture, how far it got and when, the latest first.

    Folders without an index are no jobs, and are left out.

    Args:
        results: the folder that holds the jobs' folders.

    Raises:
        FarmError: the page cannot be written.
    """
    jobs = sorted(_jobs(results), key=lambda job: (job.written, job.folder), reverse=True)
    style = asset("gallery.css")
    page = Template(asset("overview.html")).substitute(
        policy=policy(style), style=style, count=len(jobs), jobs="\n".join(_card(job) for job in jobs)
    )
    path = results / PAGE
    write_whole(path, page.encode())
    return path


def _jobs(results: Path) -> Iterator[_Job]:
    for index in results.glob(f"*/{INDEX}"):
        counts: Counter[str] = Counter()
        thumbnail = ""
        with index.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                counts[row.get("status") or ""] += 1
                thumbnail = thumbnail or row.get("file") or ""
        written = datetime.fromtimestamp(index.stat().st_mtime, UTC)
        yield _Job(index.parent.name, counts, thumbnail, written)


def _card(job: _Job) -> str:
    link = quote(f"{job.folder}/{PAGE}")
    picture = f'<img loading="lazy" alt="" src="{quote(f"{job.folder}/{job.thumbnail}")}">'
    blank = '<div class="blank"></div>'
    counts = ", ".join(f"{job.counts[status]} {status}" for status in sorted(job.counts))
    return (
        f'<li><a href="{link}">{picture if job.thumbnail else blank}<div>'
        f"<strong>{html.escape(job.folder)}</strong><br>{html.escape(counts)}<br>"
        f'<span class="quiet">{job.written:%Y-%m-%d %H:%M} UTC</span></div></a></li>'
    )
