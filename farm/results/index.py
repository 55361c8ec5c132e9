"""The index: a CSV file with one row for each cell of the plan."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path

from farm.cell import SETTING_NAMES, Cell, SettingValue
from farm.plan import Plan
from farm.results.columns import columns_of
from farm.results.journal import Record
from farm.results.whole import whole_file
from farm.results.writing import shown

INDEX = "index.csv"
_COLUMNS = (*SETTING_NAMES, "evaluations")
_OUTCOME = ("seconds", "worker", "error", "remark")
_SUSPECT = frozenset("'=+-@\t\r")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def write_index(plan: Plan, records: Mapping[str, Record], folder: Path) -> Path:
    """Write `index.csv` whole: cell, the axes, status, file, every setting, …, the plugins' columns.

    A cell without a record stands there as `pending`. Where an axis is a setting, its column says what was
    asked; if that is not always what was decided, a column `resolved …` follows among the settings, which are
    the decided ones, empty where they are left to the model. Evaluations are those that were counted. Text
    goes through `neutral`, numbers through `shown`, and the plugins' columns are those of `columns_of`.

    Args:
        plan: the whole plan, with final keys.
        records: what is known, by key; other keys are ignored.
        folder: the job's.

    Raises:
        FarmError: the file cannot be written; on Windows, another program may hold it open.
    """
    path = folder / INDEX
    columns = {cell.key: columns_of(cell, records.get(cell.key)) for cell in plan.cells}
    extras = tuple(dict.fromkeys(name for named in columns.values() for name in named))
    with whole_file(path) as binary:
        text = io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", newline="")
        table = csv.writer(text)
        settings = _settings_beside_the_axes(plan, records)
        table.writerow(_written(name) for name in _header(plan, settings, extras))
        for cell in sorted(plan.cells, key=attrgetter("number")):
            found = (columns[cell.key].get(name, "") for name in extras)
            row = chain(_row(plan, cell, settings, records.get(cell.key)), found)
            table.writerow(_written(value) for value in row)
        text.detach()
    return path


def neutral(value: SettingValue) -> SettingValue:
    """`value` such that no spreadsheet takes it for a formula.

    Text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return, and is not a number, gets an
    apostrophe before it, and so does text that begins with apostrophes and then one of these; `restored`
    takes it away again.
    """
    if not isinstance(value, str) or value[:1] not in _SUSPECT:
        return value
    return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value


def restored(text: str) -> str:
    """The text that `neutral` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _written(value: SettingValue) -> str:
    return shown(neutral(value))


def _settings_beside_the_axes(plan: Plan, records: Mapping[str, Record]) -> dict[str, str]:
    """The settings that have a column among the settings, each with the column's name."""
    asked = {axis.name: place for place, axis in enumerate(plan.axes)}

    def is_told(name: str, cell: Cell) -> bool:
        value = _on_axis(plan, asked[name], cell)
        return value == _setting(plan, name, cell, records.get(cell.key))

    told = {name for name in asked if name in _COLUMNS and all(is_told(name, cell) for cell in plan.cells)}
    return {name: f"resolved {name}" if name in asked else name for name in _COLUMNS if name not in told}


def _header(plan: Plan, settings: Mapping[str, str], extras: Sequence[str]) -> Iterator[str]:
    """The columns' names; one that is taken already says what kind it is."""
    taken = {"cell", "status", "file", *_COLUMNS, *settings.values(), "model_hash", *_OUTCOME}
    axes = [axis.name for axis in plan.axes]
    yield "cell"
    yield from (f"axis {name}" if name in taken - set(_COLUMNS) else name for name in axes)
    yield from ("status", "file")
    yield from settings.values()
    yield "model_hash"
    yield from _OUTCOME
    yield from (f"plugin {name}" if name in taken | set(axes) else name for name in extras)


def _row(plan: Plan, cell: Cell, settings: Iterable[str], record: Record | None) -> Iterator[SettingValue]:
    yield cell.number
    yield from (_on_axis(plan, place, cell) for place in range(len(plan.axes)))
    yield record.status if record else "pending"
    yield record.file if record else ""
    yield from (_setting(plan, name, cell, record) for name in settings)
    yield cell.model_hash
    yield from (getattr(record, name) if record else "" for name in _OUTCOME)


def _on_axis(plan: Plan, place: int, cell: Cell) -> SettingValue:
    """What was asked; where an axis is called as a setting that its value does not set, the setting."""
    axis = plan.axes[place]
    value = axis.values[cell.coordinates[place]]
    if axis.name in value.settings:
        return plan.shown(axis.name, value.settings[axis.name])
    return _setting(plan, axis.name, cell) if axis.name in _COLUMNS else value.title


def _setting(plan: Plan, name: str, cell: Cell, record: Record | None = None) -> SettingValue:
    if name == "evaluations":
        return record.evaluations_of(cell) if record else cell.evaluations
    return plan.shown(name, getattr(cell.settings, name))
