"""The `skip:` of a job: rules that drop combinations."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from farm.axes import Axis, BadValue, expand_item, interval, split_numbers
from farm.cell import SettingValue
from farm.document import Place, Table, Text, Written
from farm.entries import listed
from farm.errors import quoted
from farm.kinds import Number, Reading, nearest
from farm.settings import PROMPTS, SETTINGS, read_values

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"(>=|<=|!=|==|>|<)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of one setting or axis; any of its parts is enough.

    Attributes:
        name: of the setting or axis.
        titles: of values of the axis.
        values: of the setting.
        comparisons: of the setting, each an operator and a number.
        intervals: that the setting may lie in, ends included.
    """

    name: str
    titles: frozenset[str] = frozenset()
    values: frozenset[SettingValue] = frozenset()
    comparisons: tuple[tuple[str, float], ...] = ()
    intervals: tuple[tuple[float, float], ...] = ()

    def holds(self, asked: Mapping[str, SettingValue], titles: Mapping[str, str]) -> bool:
        """Whether it holds for a combination.

        Args:
            asked: the settings of the combination, as the job says them.
            titles: of its value on each axis, by the axis's name.
        """
        if self.titles and titles.get(self.name) in self.titles:
            return True
        value = asked.get(self.name)
        if self.name in asked and value in self.values:
            return True
        return isinstance(value, int | float) and (
            any(_OPERATORS[sign](value, number) for sign, number in self.comparisons)
            or any(low <= value <= high for low, high in self.intervals)
        )


@dataclass(frozen=True, slots=True)
class Skip:
    """A rule: a combination for which all its conditions hold is dropped."""

    place: Place
    conditions: tuple[Condition, ...]

    def drops(self, asked: Mapping[str, SettingValue], titles: Mapping[str, str]) -> bool:
        """Whether it drops a combination; the arguments are those of `Condition.holds`."""
        return all(condition.holds(asked, titles) for condition in self.conditions)


def read_skips(rules: Iterable[Written], axes: Sequence[Axis], reading: Reading) -> tuple[Skip, ...]:
    """The rules in the order written; what is wrong is noted."""
    by_name = {axis.name: axis for axis in axes}
    skips: list[Skip] = []
    for rule in rules:
        if isinstance(rule, Table) and rule:
            conditions = [_condition(key, written, by_name, reading) for key, written in rule.items()]
            skips.append(Skip(rule.place, tuple(conditions)))
        else:
            what = "skip: a rule is a mapping of conditions, as in {sampler: Heun, steps: '> 20'}"
            reading.mistakes.add(rule.place, what)
    return tuple(skips)


def _condition(key: Text, written: Written, axes: Mapping[str, Axis], reading: Reading) -> Condition:
    name = str(key)
    entries = listed(written)
    texts = [entry for entry in entries if isinstance(entry, Text)]
    if len(texts) != len(entries) or not texts:
        reading.mistakes.add(written.place, f"skip: {name}: a value or a list of values is wanted")
    known = _spellings(axes[name]) if name in axes else {}
    titles = frozenset(title for text in texts for title in known.get(text, ()))
    others = [text for text in texts if text not in known]
    if name in SETTINGS:
        return _of_setting(name, titles, others, reading)
    if name not in axes:
        near = nearest(name, (*SETTINGS, *axes))
        reading.mistakes.add(key.place, f"skip: {name} is neither a setting nor an axis{near}")
        return Condition(name)
    for text in others if known else ():  # an axis without values is a mistake of its own
        reading.mistakes.add(
            text.place, f"skip: {name}: {quoted(text)} is not on this axis{nearest(text, known)}"
        )
    return Condition(name, titles)


def _spellings(axis: Axis) -> dict[str, set[str]]:
    """What a rule may call values of an axis, with their titles: a prompt by its whole text too."""
    known: dict[str, set[str]] = {}
    for value in axis.values:
        text = value.settings.get(axis.name) if axis.name in PROMPTS else None
        for spelling in (value.title, text):
            if isinstance(spelling, str):
                known.setdefault(spelling, set()).add(value.title)
    return known


def _of_setting(name: str, titles: frozenset[str], texts: Sequence[Text], reading: Reading) -> Condition:
    if not isinstance(SETTINGS[name], Number):
        return Condition(name, titles, frozenset(value for _, value in read_values(name, texts, reading)))
    items = [Text.at(text.place, item) for text in texts for item in split_numbers(text)]
    plain: list[Text] = []
    comparisons: list[tuple[str, float]] = []
    intervals: list[tuple[float, float]] = []
    for item in items:
        with reading.mistakes.caught(item.place, f"skip: {name}"):
            if comparison := _COMPARISON.fullmatch(item):
                comparisons.append((comparison[1], _number(comparison[2].strip())))
            elif item.casefold() in ("random", "-1"):
                raise BadValue(f"{quoted(item)} is not a value that combinations have")
            elif ends := interval(item):
                intervals.append((float(min(ends)), float(max(ends))))
            else:
                plain.append(item)
    values = frozenset(value for _, value in read_values(name, plain, reading))
    return Condition(name, titles, values, tuple(comparisons), tuple(intervals))


def _number(text: str) -> float:
    if interval(text) is not None:
        raise BadValue(f"{quoted(text)} is a range; a comparison takes one number")
    return float(expand_item([text], 0)[0])
