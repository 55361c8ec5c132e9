"""`farm schema`, `farm samplers`, `farm models`: what jobs may say."""

import json
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.jobs import look_around
from farm.job import job_schema
from farm.sampling import SAMPLERS

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


def samplers(as_json: AsJson = False) -> None:
    """List the samplers: aliases, order, evaluations of the model at 20 steps, whether they add noise."""
    rows = [
        {
            "name": row.name,
            "aliases": list(row.aliases),
            "schedule": row.schedule,
            "order": row.order,
            "evaluations_at_20_steps": row.evaluations(20),
            "stochastic": row.stochastic,
            "source": row.source,
        }
        for row in SAMPLERS
    ]
    _print(rows, as_json)


def models(as_json: AsJson = False) -> None:
    """List the checkpoints that jobs can name."""
    place = look_around(None)
    rows = [
        {
            "name": checkpoint.name,
            "hash": place.hashes.known(checkpoint.path)[:10],
            "megabytes": round(checkpoint.size / 1e6, 1),
            "pipeline": checkpoint.pipeline or f"unreadable: {checkpoint.fault}",
            "path": str(checkpoint.path),
        }
        for checkpoint in place.checkpoints.values()
    ]
    _print(rows, as_json)


def _print(rows: list[dict[str, object]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        print(_table(rows))


def _table(rows: list[dict[str, object]]) -> str:
    titles = list(rows[0])
    lines = [titles, *([_text(row[title]) for title in titles] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
