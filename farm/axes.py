"""One dimension of a sweep, and the grammar in which people write its values.

Numbers, as in A1111's X/Y/Z plot, but exact and without its overshoot::

    values   = item {"," item}
    item     = number                        7, .5, -2, 1e-3
             | number "-" number             1-13          every whole step, both ends included
             | range "(" step ")"            1-13 (+2)     13-1 (-2)     1-5(2)     .5-1.5 (+.25)
             | range "[" count "]"           1-2 [5]       so many values, evenly spaced
             | "..." or "…"                  1, 2, ..., 9  goes on until the number that follows

A range with a step ends at the last value that is still inside: ``1-10 (+5)`` is 1, 6. An ellipsis must
land on its last number. Names are split at commas, with CSV quoting. Texts are never split.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact
from fractions import Fraction

from farm.cell import SettingValue
from farm.errors import quoted
from farm.prompts.styles import Style

MAX_VALUES = 10_000
"""Of one axis."""


@dataclass(frozen=True, slots=True)
class AxisValue:
    """One point on an axis.

    Attributes:
        title: what labels show.
        settings: the settings that this value sets, by name.
        replaces: for search-and-replace, pairs of (text searched for, text put in its place).
        order: parts of the prompt, in the order in which they are put.
        styles: that are put around the prompts, one after the other.
    """

    title: str
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    replaces: tuple[tuple[str, str], ...] = ()
    order: tuple[str, ...] = ()
    styles: tuple[Style, ...] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of a sweep.

    Attributes:
        name: of the setting it sweeps, or the person's own name for it.
        values: in the order written.
    """

    name: str
    values: tuple[AxisValue, ...]


class BadValue(ValueError):
    """A value that is not allowed; the message says which and what is, in one line."""


# Possessive quantifiers: a text that does not match is turned down in linear time. Of single characters only,
# since those of groups match too much before Python 3.11.5 (CPython issue 106052).
_NUMBER = r"[+-]?+(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?+\d{1,2}+)?"
_ITEM = re.compile(
    rf"""\s*+(?P<first>{_NUMBER})\s*+
    (?:-\s*+(?P<last>{_NUMBER})\s*+
        (?:\(\s*+(?P<step>{_NUMBER})\s*+\)\s*+ | \[\s*+(?P<count>\d++)\s*+\]\s*+)?
    )?""",
    re.VERBOSE | re.ASCII,
)
_LONGEST_ITEM = 100
_ELLIPSES = ("...", "…")


def split_numbers(text: str) -> list[str]:
    """The items of a text of numbers."""
    return [item.strip() for item in text.split(",")]


def split_names(text: str) -> list[str]:
    """The names in a text: separated by commas, those with a comma in them in double quotes.

    Raises:
        BadValue: if quotes are not closed, or there are several lines.
    """
    try:
        row = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        several = len(text.strip().splitlines()) > 1
        why = (
            "goes over several lines; names stand in one"
            if several
            else f"has quotes that do not match: {error}"
        )
        raise BadValue(f"{quoted(text)} {why}") from error
    return [name.strip() for name in row or [""]]


def split_calls(text: str) -> list[str]:
    """The names in a text, as `split_names`, where commas inside parentheses belong to a name.

    Raises:
        BadValue: if quotes are not closed, or there are several lines.
    """
    hidden = re.sub(r"\([^()]*\)", lambda call: call[0].translate(_HIDING), text)
    return [name.translate(_SHOWING) for name in split_names(hidden)]


_HIDING = str.maketrans(',"', "\0\1")  # no text of a job contains these: YAML forbids them
_SHOWING = str.maketrans("\0\1", ',"')


def expand_item(items: Sequence[str], position: int, truncate: bool = False) -> list[Fraction]:
    """The exact values that one item of a list of numbers stands for.

    Args:
        items: the whole list; the neighbours matter for an ellipsis only.
        position: of the item.
        truncate: whether evenly spaced values lose their fraction, as A1111 does for whole numbers.

    Raises:
        BadValue: if it is not in the grammar, goes nowhere, or stands for too many values.
    """
    if items[position] in _ELLIPSES:
        return _continued(items, position)
    return _item_values(items[position], truncate)


def interval(item: str) -> tuple[Fraction, Fraction] | None:
    """Both ends of a range such as ``1-13``, without step or count; None if it is none."""
    match = _ITEM.fullmatch(item) if len(item) <= _LONGEST_ITEM else None
    if match is None or match["last"] is None or match["step"] or match["count"]:
        return None
    return Fraction(match["first"]), Fraction(match["last"])


def _item_values(item: str, truncate: bool) -> list[Fraction]:
    match = _ITEM.fullmatch(item) if len(item) <= _LONGEST_ITEM else None
    if match is None:
        raise BadValue(f"{quoted(item)} is not a number or a range")
    first = Fraction(match["first"])
    if match["last"] is None:
        return [first]
    last = Fraction(match["last"])
    if match["count"] is not None:
        return _evenly_spaced(item, first, last, match["count"], truncate)
    return _range(item, first, last, Fraction(match["step"] or 1))


def _range(item: str, first: Fraction, last: Fraction, step: Fraction) -> list[Fraction]:
    if step == 0:
        raise BadValue(f"{quoted(item)} has a step of 0")
    if (last - first) * step < 0:
        way = f"({number_label(-step) if step > 0 else '+' + number_label(-step)})"
        raise BadValue(f"{quoted(item)} runs the wrong way; its step would have to be like {way}")
    count = _bounded((last - first) // step + 1, item)
    return [first + index * step for index in range(count)]


def _evenly_spaced(
    item: str, first: Fraction, last: Fraction, count_text: str, truncate: bool
) -> list[Fraction]:
    count = _bounded(int(count_text), item)
    if count == 0:
        raise BadValue(f"{quoted(item)} asks for no value")
    gaps = max(count - 1, 1)
    values = [first + (last - first) * index / gaps for index in range(count)]
    return [Fraction(int(value)) for value in values] if truncate else values


def _continued(items: Sequence[str], position: int) -> list[Fraction]:
    around = [*items[max(position - 2, 0) : position], *items[position + 1 : position + 2]]
    numbers = [Fraction(item) for item in around if re.fullmatch(_NUMBER, item, re.ASCII)]
    if len(numbers) < 3:
        raise BadValue("'...' needs two numbers before it and one after it, as in 1, 2, ..., 9")
    first, second, last = numbers
    step = second - first
    gaps = (last - second) / step if step else Fraction(0)
    if gaps < 1 or gaps.denominator != 1:
        steps = f"{number_label(first)}, {number_label(second)}, ..."
        raise BadValue(f"'{steps}' does not arrive at {number_label(last)}")
    return [second + index * step for index in range(1, _bounded(int(gaps), ", ".join(around)))]


def _bounded(count: int, item: str) -> int:
    if count > MAX_VALUES:
        raise BadValue(f"{quoted(item)} stands for more than {MAX_VALUES} values")
    return count


def number_label(value: Fraction) -> str:
    """The number as people write it: exact if it has an end (``1.0`` is 1), else to six digits."""
    context = Context(prec=250, traps=[])
    decimal = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    if context.flags[Inexact]:
        return f"{float(value):.6g}"
    return format(decimal.normalize(context), "f") if decimal else "0"
