"""What looks odd in the prompts of a job, with its place."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from farm.cell import Cell
from farm.cli.words import counted
from farm.costs import evaluations, prompt_steps
from farm.plan import Plan
from farm.prompts.naming import unapplied
from farm.prompts.oddities import oddities
from farm.settings import PROMPTS

SHOWN = 20
"""Warnings about a job; a thousand prompts may have the same one."""


def prompt_warnings(plan: Plan, addons: Mapping[str, Collection[str]]) -> list[str]:
    """A line for each: those about the job itself, then the others in the order of the cells.

    Args:
        plan: of the job.
        addons: names of the files that prompts can name, by kind.
    """
    return list(dict.fromkeys([*plan.failing, *plan.warnings, *_warnings(plan, addons)]))


def counted_warnings(warnings: Sequence[str]) -> list[str]:
    """A line that says how many there are; none if there are none."""
    return [f"{counted(len(warnings), 'warning')}: farm check lists them"] if warnings else []


def shortened(warnings: Sequence[str]) -> list[str]:
    """The first of them, and how many are left."""
    rest = len(warnings) - SHOWN
    return [*warnings[:SHOWN], f"and {rest} more warnings"] if rest > 0 else list(warnings)


def _warnings(plan: Plan, addons: Mapping[str, Collection[str]]) -> Iterator[str]:
    seen: set[tuple[str, str, int, int]] = set()
    for cell in sorted(plan.cells, key=lambda cell: cell.number):
        steps = prompt_steps(cell.settings, plan.samplers)
        asked = evaluations(cell.settings, plan.samplers)
        for name in PROMPTS:
            text: str = getattr(cell.settings, name)
            if (name, text, steps, asked) in seen:
                continue
            seen.add((name, text, steps, asked))
            negative = name == "negative_prompt"
            found = sorted([*oddities(text, steps, asked, negative), *unapplied(text, addons, negative)])
            where = f"{plan.places.get(name, plan.name)}: warning: {name}{_which(plan, cell, name, text)}"
            yield from (f"{where}, {one.at(text)}" for one in found)


def _which(plan: Plan, cell: Cell, name: str, text: str) -> str:
    """Which of an axis' prompts it is, and whether it is put together from what the job says."""
    said, which = plan.typed.get(name), ""
    for axis, index in zip(plan.axes, cell.coordinates, strict=True):
        if name in axis.values[index].settings:
            said = str(axis.values[index].settings[name])
            which = f" {index + 1} of {len(axis.values)}" if len(axis.values) > 1 else ""
    return which if said == text else f"{which} as put together"
