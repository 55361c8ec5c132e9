"""What looks odd in the prompts of a job, with its place."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from farm.costs import prompt_steps
from farm.plan import Plan
from farm.prompts.naming import unapplied
from farm.prompts.oddities import oddities

SHOWN = 20
"""Warnings about a job; a thousand prompts may have the same one."""


def prompt_warnings(plan: Plan, addons: Mapping[str, Collection[str]]) -> list[str]:
    """A line for each, in the order of the cells.

    Args:
        plan: of the job.
        addons: names of the files that prompts can name, by kind.
    """
    return list(dict.fromkeys(_warnings(plan, addons)))


def shortened(warnings: Sequence[str]) -> list[str]:
    """The first of them, and how many are left."""
    rest = len(warnings) - SHOWN
    return [*warnings[:SHOWN], f"and {rest} more warnings"] if rest > 0 else list(warnings)


def _warnings(plan: Plan, addons: Mapping[str, Collection[str]]) -> Iterator[str]:
    seen: set[tuple[str, str, int]] = set()
    for cell in sorted(plan.cells, key=lambda cell: cell.number):
        settings, steps = cell.settings, prompt_steps(cell.settings, plan.samplers)
        for name, text in (("prompt", settings.prompt), ("negative_prompt", settings.negative_prompt)):
            if (name, text, steps) in seen:
                continue
            seen.add((name, text, steps))
            negative = name == "negative_prompt"
            for one in sorted([*oddities(text, steps, negative), *unapplied(text, addons, negative)]):
                yield f"{plan.places.get(name, plan.name)}: warning: {name}, {one.at(text)}"
