"""`farm plan` and `farm check`: what a job comes to, before anything is rendered."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.axes import Axis
from farm.cli.explain import explanation
from farm.cli.jobs import Hashed, Place, load_plans, look_around, read_plans
from farm.cli.oddities import counted_warnings, prompt_warnings, shortened
from farm.cli.options import JobFiles, Models, Overrides, Precision, order_of, overridden
from farm.cli.words import counted
from farm.errors import BadInput, Problem
from farm.explaining import explained, loads_of
from farm.plan import Plan
from farm.rates import Rates
from farm.results.store import done_in
from farm.weights.addons import addon_names
from farm.work import Needs

BYTES_PER_PIXEL = 1.75
"""What a rendered picture takes as PNG, about; measured on tiny-cats' pictures."""

BYTES_OF_METADATA = 1000
"""What its infotext and its cell take beside that."""


def plan(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="A job file (YAML).", show_default=False)],
    overrides: Overrides = None,
    precision: Precision = None,
    models: Models = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where results are; ./results if not given.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say in what order cells are rendered, and what they share.")
    ] = False,
    order: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The order to explain, fast or coarse, as for farm run.", show_default=False
        ),
    ] = None,
) -> None:
    """Show what a job comes to: cells, evaluations, what is shared, space on disk."""
    chosen = None if order is None else order_of(order)
    if chosen and not explain:
        raise BadInput([Problem("--order", "goes with --explain; what a job comes to is the same in any")])
    place = look_around(results, models)
    [compiled] = load_plans([job], overridden(overrides, precision), place)
    warnings = prompt_warnings(compiled, addon_names(place.catalog))
    hashed = place.hashed([compiled], place.hashes.known)
    ordered = compiled.in_order(chosen) if chosen else compiled
    facts = facts_of(compiled) | {"estimate": _estimate(ordered, place, hashed), "warnings": warnings}
    facts |= _done(ordered, facts, place, hashed)
    told = explained(ordered) if explain else None
    if as_json:
        facts |= {"explanation": asdict(told)} if told else {}
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    print(_in_words(compiled, facts))
    if told:
        print("", *explanation(told), sep="\n")


def _estimate(planned: Plan, place: Place, hashed: Hashed) -> dict[str, Any] | None:
    needs = Needs(planned.needs(), loads_of(planned), planned.texts())
    estimate = Rates().estimate(needs, hashed.models, str(place.workspace.root))
    return asdict(estimate) if estimate else None


def _done(planned: Plan, facts: Mapping[str, Any], place: Place, hashed: Hashed) -> dict[str, Any]:
    """What is there already, as far as that can be told without reading whole checkpoints."""
    if not hashed.is_complete:
        return {"done": None, "estimate_of_the_others": None, "others_at_most": False}
    if not (done := done_in(place.results / planned.name)):
        others = {"estimate_of_the_others": facts["estimate"], "others_at_most": facts["rows_at_most"]}
        return {"done": 0, **others}
    plan = hashed.keyed(planned)
    left = plan.without(done)
    return {
        "done": len(plan.cells) - len(left.cells),
        "estimate_of_the_others": _estimate(left, place, hashed) if left.cells else None,
        "others_at_most": left.leaves_rows_out(),
    }


def check(jobs: JobFiles, overrides: Overrides = None, models: Models = None) -> None:
    """Look for every mistake in job files without rendering; exit status 2 if there is one.

    What looks odd in a prompt, but means something, is a warning.
    """
    place = look_around(None, models)
    addons = addon_names(place.catalog)
    plans, problems = read_plans(jobs, overrides or [], place)
    for compiled in plans:
        print(f"{compiled.name}: {counted(len(compiled.cells), 'cell')}, no mistakes")
        for warning in shortened(prompt_warnings(compiled, addons)):
            print(warning)
    if problems:
        sys.stdout.flush()  # before what is wrong
        raise BadInput(problems)


def facts_of(compiled: Plan) -> dict[str, Any]:
    """What `farm plan --json` prints."""
    pictures = {cell.settings for cell in compiled.cells}
    shared = compiled.shared_rows()
    pixels = sum(settings.width * settings.height for settings in pictures)
    return {
        "name": compiled.name,
        "cells": len(compiled.cells),
        "axes": {axis.name: [value.title for value in axis.values] for axis in compiled.axes},
        "models": list(compiled.models()),
        "steps": sorted({settings.steps for settings in pictures}),
        "pictures": len(pictures),
        "evaluations": compiled.evaluations(),
        "rows": compiled.unshared_rows() - shared,
        "rows_at_most": compiled.leaves_rows_out(),
        "shared_rows": shared,
        "shallow_rows": compiled.shallow_rows(),
        "text_encodings": compiled.text_encodings(),
        "image_encodings": compiled.image_encodings(),
        "checkpoint_loads": sum(loads_of(compiled).values()),
        "notes": list(compiled.notes),
        "bytes_on_disk": round(pixels * BYTES_PER_PIXEL + len(pictures) * BYTES_OF_METADATA),
    }


def _in_words(compiled: Plan, facts: dict[str, Any]) -> str:
    axes = [f"  {axis.name}: {_values(axis)}" for axis in compiled.axes]
    at_most = "at most " * facts["rows_at_most"]
    lines = [
        f"{compiled.name}: {counted(len(compiled.cells), 'cell')}{_twins(compiled)}",
        *axes,
        *_steps(compiled),
        *compiled.notes,
        *counted_warnings(facts["warnings"]),
        f"evaluations of the model: {facts['evaluations']}",
        f"rows through the UNet: {at_most}{facts['rows']}, after {facts['shared_rows']} that are shared",
        *(
            [f"of these through its shallow blocks alone: {facts['shallow_rows']}"]
            * bool(facts["shallow_rows"])
        ),
        f"text encodings: {facts['text_encodings']}",
        *([f"image encodings: {facts['image_encodings']}"] * bool(facts["image_encodings"])),
        f"checkpoint loads: {facts['checkpoint_loads']}, with one worker",
        f"pictures on disk: about {_size(facts['bytes_on_disk'])}, if no plugin resizes them",
        f"time: {at_most * bool(facts['estimate'])}{_time(facts['estimate'])}",
        *_there(facts),
    ]
    return "\n".join(lines)


def _there(facts: dict[str, Any]) -> Iterator[str]:
    """What earlier runs have left to be done."""
    done, cells, estimate = facts["done"], facts["cells"], facts["estimate_of_the_others"]
    if done == cells:
        yield "all of it is there already"
    elif done:
        at_most = "at most " * facts["others_at_most"]
        time = f", which take {at_most}about {_duration(estimate['seconds'])}" if estimate else ""
        yield f"{done} of {counted(cells, 'cell')} are there already; {cells - done} are left{time}"


def _twins(compiled: Plan) -> str:
    different = len({cell.settings for cell in compiled.cells})
    return "" if different == len(compiled.cells) else f", {counted(different, 'different picture')}"


MOST_VALUES = 50
"""Of one axis that are listed; of more, the first and the last ones are."""


def _values(axis: Axis) -> str:
    titles = [_in_list(value.title) for value in axis.values]
    if len(titles) > MOST_VALUES:
        titles = [*titles[:3], "…", *titles[-1:], f"{len(titles)} in all"]
    return ", ".join(titles)


def _in_list(title: str) -> str:
    """A title among others; one with a comma stands in double quotes, as jobs write it."""
    doubled = title.replace('"', '""')
    return f'"{doubled}"' if "," in title else title


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"


def _time(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return "not known before a first run of these checkpoints at these sizes"
    who = f"{counted(estimate['workers'], 'worker')} ({estimate['device']})"
    seconds = f"about {_duration(estimate['seconds'])} once they have started"
    return f"{seconds}, with {who}, as measured on {estimate['measured']}"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"


def _steps(compiled: Plan) -> Iterator[str]:
    """What each sampler makes of `evaluations`, where these are asked for."""
    if not compiled.by_evaluations:
        return
    found: dict[str, set[int]] = {}
    for cell in compiled.cells:
        if not compiled.samplers[cell.settings.sampler].chooses_steps:
            found.setdefault(cell.settings.sampler, set()).add(cell.settings.steps)
    if found:
        yield "steps: " + "; ".join(
            f"{name} {', '.join(map(str, sorted(steps)))}" for name, steps in found.items()
        )
