"""Samplers and schedules that plugins add to those of `farm.sampling`."""

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from farm.counting import TRAINING_TIMESTEPS
from farm.errors import described
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
        where = _checked_fields("sampler", row)
        _check_options(where, row.options, OPTIONS)
        _check_counts(where, "evaluations", row.evaluations)
        if "eta" in row.options and row.eta is None:
            raise BadRow(f"{where}: has eta among its options, but does not say what it usually is")
    for row in _all_are(Schedule, "schedules", schedules):
        where = _checked_fields("schedule", row)
        _check_options(where, row.options, SCHEDULE_OPTIONS)
        _check_counts(where, "steps", row.steps)
    extended(BUILT_IN, rows, schedules)
    return tuple(rows), tuple(schedules)


def _is_line(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and value == value.strip()


def _is_lines(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_line, value))


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _divides_training(value: object) -> bool:
    return isinstance(value, int) and _is_whole(value) and (value == 0 or TRAINING_TIMESTEPS % value == 0)


def _is_count(value: object) -> bool:
    return _is_whole(value) and value != 0


def _is_amount(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


def _has_texts_as_keys(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


_LINE = (_is_line, "a text of one line")
_TEXTS = (_is_lines, "a tuple of texts, as in ('one', 'two') or ('one',)")
_SWITCH = (_is_bool, "True or False")
_OWN = (callable, "a function of the plugin")
_COUNTING = (callable, "a function of the steps")

FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": _LINE, "title": _LINE, "source": _LINE, "schedule": _LINE,
    "aliases": _TEXTS, "options": _TEXTS,
    "algorithm": _OWN, "function": _OWN, "evaluations": _COUNTING, "steps": _COUNTING,
    "order": (_is_count, "a whole number above 0"),
    "distilled_at": (_divides_training, f"0 or a divisor of {TRAINING_TIMESTEPS}"),
    "restarts_from": (_is_whole, "a whole number from 0 on"),
    "eta": (_is_amount, "a number from 0 on, or None"),
    "fixed": (_has_texts_as_keys, "a mapping of arguments by their names"),
    "stochastic": _SWITCH, "takes_schedules": _SWITCH, "brownian": _SWITCH, "chooses_steps": _SWITCH,
    "discards_next_to_last_sigma": _SWITCH, "starts_at_unit_variance": _SWITCH,
    "ends_at_sigma_min": _SWITCH, "starts_at_sigma_max": _SWITCH, "starts_from_pictures": _SWITCH,
}  # fmt: skip
"""What each field of a row must be, and that in words."""


def _checked_fields(kind: str, row: Any) -> str:
    """How messages call the row, once each of its fields is of the right kind."""
    where = f"{kind} {_shown(row.name)}"
    for field in fields(row):
        is_right, wanted = FIELDS[field.name]
        value = getattr(row, field.name)
        if not is_right(value):
            raise BadRow(f"{where}: {field.name} is {_shown(value)}, not {wanted}")
    return where


def _check_counts(where: str, field: str, count: Callable[[int], int]) -> None:
    try:
        counts = [count(steps) for steps in (1, 20)]
    except Exception as error:  # it is a stranger's function
        raise BadRow(f"{where}: {field} of 1 and 20 steps fail with {described(error)}") from error
    if not all(map(_is_count, counts)):
        raise BadRow(f"{where}: {field} of 1 and 20 steps are {_shown(counts)}, not whole numbers above 0")


def _shown(value: object) -> str:
    return " ".join(reprlib.repr(value).split())


def _all_are(kind: type[Any], hook: str, rows: Any) -> Sequence[Any]:
    if not isinstance(rows, list | tuple) or not all(isinstance(row, kind) for row in rows):
        raise BadRow(f"{hook} gave {_shown(rows)}, not a list of farm.hooks.{kind.__name__}")
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
