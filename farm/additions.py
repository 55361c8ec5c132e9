"""Samplers and schedules that plugins add to those of `farm.sampling`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from farm.sampling import AUTOMATIC, BUILT_IN, Sampler, Samplers, Schedule

OPTIONS = ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise", "sigma_min", "time_at")
"""What a sampler can have among its options: settings, and the model's timestep of a sigma."""

SCHEDULE_OPTIONS = ("sigma_min", "sigma_max", "rho")
"""What a schedule can have among its options."""

_RESERVED = ("", "all", AUTOMATIC, "auto")


class BadRow(ValueError):
    """A sampler or schedule that cannot be added; the message is one clear line."""


def extended(samplers: Samplers, rows: Sequence[Sampler], schedules: Sequence[Schedule]) -> Samplers:
    """All of them.

    Args:
        samplers: and schedules that are there.
        rows: samplers to add.
        schedules: to add.

    Raises:
        BadRow: a name is taken or not allowed, or a sampler's own schedule is not there.
    """
    if not rows and not schedules:
        return samplers
    there = {spelling: "" for row in samplers.schedules.values() for spelling in (row.name, row.title)}
    named = [each for row in schedules for each in dict.fromkeys((row.name, row.title.casefold()))]
    _refuse("schedule", there, named)
    more = Samplers((*samplers.samplers, *rows), (*samplers.schedules.values(), *schedules))
    _refuse("sampler", _spellings(samplers), [each for row in rows for each in (row.name, *row.aliases)])
    twins = _twins(more)
    if twins:
        raise BadRow(f"sampler {twins[0]!r} could be two: a sampler of this name, or one with a schedule")
    for row in rows:
        if row.schedule not in more.schedules:
            raise BadRow(f"sampler {row.name!r} has the schedule {row.schedule!r}, which is not there")
    return more


def check_added(rows: Any, schedules: Any) -> tuple[tuple[Sampler, ...], tuple[Schedule, ...]]:
    """What a plugin gives, if it is right and can be added to the built-in ones.

    Raises:
        BadRow: if it is not.
    """
    for row in _all_are(Sampler, "samplers", rows):
        _check_sampler(f"sampler {row.name!r}", row)
    for row in _all_are(Schedule, "schedules", schedules):
        if not callable(row.function):
            raise BadRow(f"schedule {row.name!r}: function is {row.function!r}, not a function of the plugin")
        _check_options(f"schedule {row.name!r}", row.options, SCHEDULE_OPTIONS)
    extended(BUILT_IN, rows, schedules)
    return tuple(rows), tuple(schedules)


def _check_sampler(where: str, row: Sampler) -> None:
    if not callable(row.algorithm):
        raise BadRow(f"{where}: algorithm is {row.algorithm!r}, not a function of the plugin")
    _check_options(where, row.options, OPTIONS)
    counts = [row.evaluations(steps) for steps in (1, 20)]
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise BadRow(f"{where}: evaluations of 1 and 20 steps are {counts}, not whole numbers above 0")
    if "eta" in row.options and row.eta is None:
        raise BadRow(f"{where}: has eta among its options, but does not say what it usually is")


def _all_are(kind: type[Any], hook: str, rows: Any) -> Sequence[Any]:
    if not isinstance(rows, list | tuple) or not all(isinstance(row, kind) for row in rows):
        raise BadRow(f"{hook} gave {rows!r}, not a list of farm.hooks.{kind.__name__}")
    return rows


def _check_options(where: str, options: Iterable[str], allowed: Sequence[str]) -> None:
    for option in options:
        if option not in allowed:
            raise BadRow(f"{where}: there is no option {option!r}; there are {', '.join(allowed)}")


def _spellings(samplers: Samplers) -> Mapping[str, object]:
    return {spelling: "" for name, others in samplers.names.items() for spelling in (name, *others)}


def _twins(samplers: Samplers) -> list[str]:
    """Names that mean two things."""
    names = [
        f"{row.name} {schedule.title}".casefold()
        for row in samplers.samplers
        if row.takes_schedules
        for schedule in samplers.schedules.values()
    ]
    plain = {spelling.casefold() for row in samplers.samplers for spelling in (row.name, *row.aliases)}
    return [name for name in names if name in plain]


def _refuse(kind: str, there: Iterable[str], names: Iterable[str]) -> None:
    seen = {name.casefold() for name in there}
    for name in names:
        folded = name.strip().casefold()
        if folded in _RESERVED or "," in name or "(" in name or folded.startswith("diffusers:"):
            raise BadRow(f"{kind} {name!r} is no name that jobs could write")
        if folded in seen:
            raise BadRow(f"{kind} {name!r} is there already")
        seen.add(folded)
