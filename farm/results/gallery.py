"""The page of a job: one plain file that opens from the disk."""

import html
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from string import Template
from typing import Any

from farm.cell import SETTING_NAMES, Cell
from farm.plan import Plan
from farm.results.columns import columns_of
from farm.results.index import INDEX
from farm.results.infotext import infotext
from farm.results.journal import Record
from farm.results.labels import labels
from farm.results.page import PAGE, asset, policy
from farm.results.pages import heading, shared_settings
from farm.results.sheet import SHEETS
from farm.results.whole import whole_file

_DATA = "\0"  # where the data goes in the filled template; no text that is shown contains it


def write_gallery(plan: Plan, records: Mapping[str, Record], folder: Path) -> Path:
    """Write a job's `index.html`: the table of its pictures, with everything known about each.

    One file without a server: the data stands in it as JSON, the pictures are linked. A content security
    policy admits this page's own script and nothing else, and the script shows text as text only.

    Args:
        plan: the whole plan, with final keys.
        records: what came of its cells, by key.
        folder: the job's.

    Raises:
        FarmError: the page cannot be written.
    """
    style, script = asset("gallery.css"), asset("gallery.js")
    page = Template(asset("gallery.html")).substitute(
        policy=policy(style, script), title=html.escape(plan.name), style=style, script=script, data=_DATA
    )
    before, _, after = page.rpartition(_DATA)
    path = folder / PAGE
    with whole_file(path) as file:
        file.write(before.encode())
        for piece in _data(plan, records, _files(folder)):
            file.write(piece.encode())
        file.write(after.encode())
    return path


def _data(plan: Plan, records: Mapping[str, Record], beside: list[str]) -> Iterator[str]:
    """The page's data as JSON, piece by piece."""
    shared = shared_settings(plan.cells)
    told = labels(plan, plan.cells)
    cells = sorted(plan.cells, key=attrgetter("number"))
    head = {
        "name": plan.name,
        "axes": [{"name": name, "titles": titles} for name, titles in told.titles.items()],
        "layout": asdict(plan.layout),
        "shared": {name: plan.shown(name, value) for name, value in shared.items()},
        "heading": heading(plan, plan.cells, told.heading),
        "size": {
            "width": max((cell.settings.width for cell in cells), default=1),
            "height": max((cell.settings.height for cell in cells), default=1),
        },
        "files": beside,
        "made": f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    }
    yield _json(head)[:-1] + ',"cells":['
    for index, cell in enumerate(cells):
        own = [name for name in SETTING_NAMES if name not in shared]
        yield ("," if index else "") + _json(_entry(plan, cell, records.get(cell.key), own))
    yield "]}"


def _files(folder: Path) -> list[str]:
    """The index, the job and the sheets, as far as they have been written."""
    found = [folder / INDEX, folder / "job.yaml", *sorted((folder / SHEETS).glob("*.png"))]
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]


def _entry(plan: Plan, cell: Cell, record: Record | None, own: list[str]) -> dict[str, Any]:
    entry = {
        "number": cell.number,
        "at": cell.coordinates,
        "status": record.status if record else "pending",
        "key": cell.key,
        "settings": {name: plan.shown(name, getattr(cell.settings, name)) for name in own},
        "evaluations": record.evaluations_of(cell) if record else cell.evaluations,
        "infotext": infotext(cell),
    }
    if record:
        entry |= {
            name: getattr(record, name)
            for name in ("file", "error", "remark", "seconds", "worker", "finished", "attempts")
        }
        entry["columns"] = {
            name: value if not isinstance(value, float) or math.isfinite(value) else str(value)
            for name, value in columns_of(cell, record).items()
        }
    return entry


def _json(content: object) -> str:
    """JSON that can stand inside a script element: nothing in it ends that element."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
