"""Which brackets, colons and bars of a prompt belong to an edit or an alternation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Mark(NamedTuple):
    """A token of the grammar that is more than text.

    Attributes:
        start: of it in the text.
        end: behind it.
        kind: its name in the grammar.
    """

    start: int
    end: int
    kind: str


@dataclass(slots=True)
class _Group:
    """What stands behind an opening bracket, as far as it was read."""

    opening: str
    start: int
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)
    sound: bool = True


_SPECIAL = re.compile(r"\\[^\n]|[\[\]():|\\]")
_WHEN = re.compile(
    r":\s*+[+-]?(?:[0-9]++[eE][+-]?[0-9]++|(?:[0-9]++\.[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?|[0-9]++)\s*+\]"
)
_CLOSING = {"(": ")", "[": "]"}


class _Bare(Exception):
    """Something at a place without which a text could have edits; and whether that is inside of [ ]."""

    def __init__(self, place: int, inside: bool = False) -> None:
        self.found = place, inside


def marks(text: str) -> list[Mark]:
    """The tokens of edits and alternations in the order of the text; none if all of it is to be left alone.

    A closing bracket belongs to the last one that was opened, or else to none, and then none of those that
    are open has a partner either.
    """
    try:
        return _read(text)
    except _Bare:
        return []


def bare(text: str) -> tuple[int, bool] | None:
    """The place of a bar outside of all alternations, or of a backslash before nothing; None if all is well.

    The second value is whether a bar stands in square brackets all the same.
    """
    try:
        _read(text)
    except _Bare as found:
        return found.found
    return None


def _read(text: str) -> list[Mark]:
    if ":" not in text and "|" not in text:
        return []
    found: list[Mark] = []
    groups: list[_Group] = []
    for match in _SPECIAL.finditer(text):
        start, token = match.start(), match[0]
        if token in _CLOSING:
            groups.append(_Group(token, start))
        elif token in ")]":
            found += _closed(groups, text, start)
        elif token == ":" and groups:
            groups[-1].colons.append(start)
        elif token == "|" and groups:
            groups[-1].bars.append(start)
        elif token in "|\\":
            raise _Bare(start)
    _check_bars(groups)
    return sorted(found)


def _closed(groups: list[_Group], text: str, end: int) -> Sequence[Mark]:
    """The tokens of the group that a bracket closes."""
    if not groups or _CLOSING[groups[-1].opening] != text[end]:
        _check_bars(groups)
        groups.clear()
        return ()
    group = groups.pop()
    own = _marks_of(group, text, end) if group.sound else None
    if own is not None:
        return own
    _check_bars([group])
    if groups:
        groups[-1].sound = False
    return ()


def _check_bars(groups: Sequence[_Group]) -> None:
    """These groups are no alternations."""
    if bars := [(bar, group.opening == "[") for group in groups for bar in group.bars]:
        raise _Bare(*min(bars))


def _marks_of(group: _Group, text: str, end: int) -> Sequence[Mark] | None:
    """None if its brackets cannot stand inside an edit or an alternation."""
    colons, bars = group.colons, group.bars
    if group.opening == "(":
        return None if bars or len(colons) > 1 else ()
    if bars:
        return None if colons else _alternation(group, end)
    if not colons:
        return ()
    if len(colons) > 2 or not _WHEN.fullmatch(text, colons[-1], end + 1):
        return None
    first = [Mark(colons[0], colons[0] + 1, "COLON")] if len(colons) == 2 else []
    return [Mark(group.start, group.start + 1, "EDIT"), *first, Mark(colons[-1], end + 1, "WHEN")]


def _alternation(group: _Group, end: int) -> list[Mark]:
    bars = [Mark(bar, bar + 1, "BAR") for bar in group.bars]
    return [Mark(group.start, group.start + 1, "ALTERNATION"), *bars, Mark(end, end + 1, "CLOSE")]
