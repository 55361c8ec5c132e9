"""Files that a job names and that cannot be used: whose cells fail, while the others are rendered."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from farm.cell import Settings
from farm.cli.words import counted
from farm.errors import FarmError, Problem, quoted
from farm.plan import Plan
from farm.weights.catalog import Catalog
from farm.weights.configs import check_checkpoint, check_file
from farm.weights.named import Named
from farm.weights.places import Kind

Use = tuple[str, str, str]
"""The setting that names a file, its kind, and its name."""


def without_unusable(plan: Plan, path: Path, catalog: Catalog, named: Named) -> tuple[Plan, list[Problem]]:
    """The plan with a line for each file that fails some of its cells; mistakes, if all of them would fail.

    Args:
        plan: of the job.
        path: of the job file, for settings that it does not have.
        catalog: of the models.
        named: finds the other files that pictures are made with.
    """
    plan = replace(plan, warnings=(*plan.warnings, *_words(plan, path, named)))
    cells = Counter(_named_by(cell.settings, named) for cell in plan.cells)
    faults: dict[Use, str] = {}
    for use in dict.fromkeys(use for uses in cells for use in uses):
        if fault := _fault(use, catalog, named):
            faults[use] = fault
    if not faults:
        return plan, []
    if all(any(use in faults for use in uses) for uses in cells):
        return plan, [
            Problem(str(plan.places.get(setting, path)), f"{setting}: {fault}")
            for (setting, *_), fault in faults.items()
        ]
    lines = []
    for use, fault in faults.items():
        count = sum(number for uses, number in cells.items() if use in uses)
        fails = f"{counted(count, 'cell')} with it {'fails' if count == 1 else 'fail'}"
        lines.append(f"{plan.places.get(use[0], path)}: warning: {use[0]}: {fault}; {fails}")
    return replace(plan, failing=tuple(lines)), []


def _words(plan: Plan, path: Path, named: Named) -> Iterator[str]:
    """What is said of embeddings that are for other checkpoints."""
    found = dict.fromkeys(
        (name, cell.settings.model) for cell in plan.cells for name in named.words(cell.settings)
    )
    for name, model in found:
        what = f"the embedding {quoted(name)} is for other checkpoints than {model!r}: there it is a word"
        yield f"{plan.places.get('prompt', path)}: warning: {what}"


def _named_by(settings: Settings, named: Named) -> tuple[Use, ...]:
    """All files that a picture is made with."""
    others = ((kind if kind == Kind.VAE else "prompt", kind, name) for kind, name in named.uses(settings))
    return ("model", Kind.CHECKPOINT.value, settings.model), *others


def _fault(use: Use, catalog: Catalog, named: Named) -> str:
    _, kind, name = use
    check: Callable[[], None]
    if kind == Kind.CHECKPOINT:
        check = partial(check_checkpoint, catalog.checkpoint(name))
    else:
        check = partial(check_file, Kind(kind), named.matching(kind, name)[0].path)  # the only one
    try:
        check()
    except FarmError as error:
        return f"{quoted(name)} cannot be used; {error}"
    return ""
