"""`farm schema`, `farm samplers`, `farm models`: what jobs may say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.jobs import look_around
from farm.costs import evaluations_at
from farm.diffusers_schedulers import scheduler_facts, suited
from farm.job import job_schema
from farm.resolving import MAX_STEPS
from farm.sampling import BUILT_IN, Sampler

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
    """List the samplers: aliases, order, evaluations of the model, whether they add noise, schedules.

    A name can say its schedule: "DPM++ 2M Karras" is DPM++ 2M with the schedule karras, and so with every
    title that farm schedules lists. Jobs that ask for a plugin can name its samplers too.
    """
    if diffusers:
        _print(list(_schedulers()), as_json)
        return
    _print([_sampler(row, steps) for row in BUILT_IN.samplers], as_json)
    if not as_json:
        print(
            "\nAny scheduler of diffusers too: diffusers:ClassName(option=value, …); --diffusers lists them."
        )


def _sampler(row: Sampler, steps: int) -> dict[str, object]:
    return {
        "name": row.name,
        "aliases": list(row.aliases),
        "order": row.order,
        f"evaluations_at_{steps}_steps": evaluations_at(steps, row, BUILT_IN.schedules[row.schedule]),
        "stochastic": row.stochastic,
        "schedule": row.schedule,
        "takes_others": row.takes_schedules,
        "source": row.source,
    }


def _schedulers() -> Iterator[dict[str, object]]:
    for name in suited():
        options = scheduler_facts(name).options
        yield {
            "name": f"diffusers:{name}",
            "options": [key for key, row in options.items() if not row.is_object],
        }


def schedules(as_json: AsJson = False) -> None:
    """List the schedules: as jobs write them, as they stand in a sampler's name, what each depends on."""
    rows: list[dict[str, object]] = [
        {"name": row.name, "in_names": row.title, "settings": list(row.options), "source": row.source}
        for row in BUILT_IN.schedules.values()
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
