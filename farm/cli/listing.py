"""`farm schema`, `farm samplers`, `farm schedules`: what jobs may say; and how rows are printed."""

import io
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from farm.costs import evaluations_at
from farm.diffusers_schedulers import PREFIX, Option, scheduler_facts, suited
from farm.job import job_schema
from farm.resolving import MAX_STEPS
from farm.sampling import BUILT_IN, Sampler
from farm.scheduler_names import written

WIDEST = 100
"""Columns of a terminal that listings use at most; wider lines are hard to follow."""

_GAP = 2

Row = Mapping[str, Any]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
) -> None:
    """Print the JSON Schema of job files; editors complete and check with it."""
    text = json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8")


def samplers(
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", min=1, max=MAX_STEPS, help="Count evaluations at so many.")
    ] = 20,
    diffusers: Annotated[
        bool, typer.Option("--diffusers", help="List diffusers' schedulers with their options instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the samplers: aliases, order, evaluations of the model, whether they add noise, schedule, source.

    A name can say its schedule: "DPM++ 2M Karras" is DPM++ 2M with the schedule karras, and so with every
    title that farm schedules lists. Jobs that ask for a plugin can name its samplers too. --json tells of
    diffusers' options which words are allowed.
    """
    if diffusers:
        _list_schedulers(as_json)
        return
    evaluations = f"evaluations_at_{steps}_steps"
    shown = {
        "name": "name", "aliases": "aliases", "order": "order", evaluations: f"evaluations at {steps} steps",
        "stochastic": "adds noise", "schedule": "own schedule",
    }  # fmt: skip
    print_rows([_sampler(row, evaluations, steps) for row in BUILT_IN.samplers], shown, as_json)
    if not as_json:
        print("\n" + "\n".join(_sources()))
        print("\nEach takes any other schedule too, but for those that have none.")
        print(f"And {PREFIX}ClassName(option=value, …) of diffusers; --diffusers lists them.")


def _sources() -> Iterator[str]:
    """Each source once, with the samplers that come from it."""
    rows = sorted(BUILT_IN.samplers, key=lambda row: row.source)
    for source, group in groupby(rows, key=lambda row: row.source):
        text = f"{', '.join(row.name for row in group)}: {source}"
        yield textwrap.fill(text, min(WIDEST, _columns()), subsequent_indent="    ")


def _sampler(row: Sampler, evaluations: str, steps: int) -> Row:
    return {
        "name": row.name,
        "aliases": list(row.aliases),
        "order": row.order,
        evaluations: evaluations_at(steps, row, BUILT_IN.schedules[row.schedule]),
        "stochastic": row.stochastic,
        "schedule": row.schedule if row.takes_schedules else None,
        "takes_schedules": row.takes_schedules,
        "source": row.source,
    }


def _list_schedulers(as_json: bool) -> None:
    """One class after the other, each with its options as a job writes them, at their defaults."""
    found = {f"{PREFIX}{name}": _options(name) for name in suited()}
    if as_json:
        _print_json([{"name": name, "options": _in_json(options)} for name, options in found.items()])
        return
    for name, options in found.items():
        defaults = ", ".join(f"{option}={written(row.default)}" for option, row in options.items())
        print(name)
        print(textwrap.indent(textwrap.fill(defaults, min(WIDEST, _columns()) - 4), "    "))


def _options(name: str) -> Mapping[str, Option]:
    return {option: row for option, row in scheduler_facts(name).options.items() if not row.is_object}


def _in_json(options: Mapping[str, Option]) -> Row:
    """Of each option the default, and the words that are allowed where only some are."""
    return {
        name: {
            "default": written(row.default) if row.default == -math.inf else row.default,  # JSON has no -inf
            **({"allowed": list(row.words)} if row.words else {}),
        }
        for name, row in options.items()
    }


def schedules(as_json: AsJson = False) -> None:
    """List the schedules: as jobs write them, as they stand in a sampler's name, what each depends on."""
    rows = [
        {"name": row.name, "in_names": row.title, "settings": list(row.options), "source": row.source}
        for row in BUILT_IN.schedules.values()
    ]
    shown = {"name": "name", "in_names": "in names", "settings": "settings", "source": "source"}
    print_rows(rows, shown, as_json)


def print_rows(rows: Sequence[Row], shown: Mapping[str, str], as_json: bool) -> None:
    """Print rows: as JSON all of them, as a table what is shown, each under its title."""
    if as_json:
        _print_json(rows)
    elif rows:
        print(_table(rows, shown, _columns()))


def _print_json(rows: Sequence[Row]) -> None:
    print(json.dumps(rows, indent=2, ensure_ascii=False))


def _columns() -> int:
    """How wide a table may be: as the terminal, but what goes into a file or a pipe is never wrapped."""
    return min(WIDEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 10_000


def _table(rows: Sequence[Row], shown: Mapping[str, str], width: int) -> str:
    lines = [[_text(row[key]) for key in shown] for row in rows]
    widths = _widths([list(shown.values()), *lines], width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for title, columns in zip(shown.values(), widths):
        table.add_column(title, width=columns)
    for line in lines:
        table.add_row(*line)
    file = io.StringIO()
    Console(
        file=file, width=sum(widths) + _GAP * len(widths), markup=False, emoji=False, highlight=False
    ).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _widths(lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """Of a table's columns: each holds its longest word, and what room is left goes to the first of them.

    Where not even the words have room, the table is wider: a path that is broken cannot be copied.
    """
    columns = list(zip(*lines))
    widths = [max(len(word) for cell in column for word in (cell.split() or [""])) for column in columns]
    spare = max(0, width - sum(widths) - _GAP * len(columns))
    for index, column in enumerate(columns):
        more = min(spare, max(map(len, column)) - widths[index])
        widths[index] += more
        spare -= more
    return widths


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
