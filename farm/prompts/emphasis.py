r"""Emphasis: a step's text becomes pieces with weights.

    (a)  1.1 times    [a]  divided by 1.1    (a:1.3)  1.3 times    \( \) \[ \] \\  the character itself

A bracket that is not closed holds to the end, one that was not opened is text. Round and square brackets are
paired apart from each other and may cross, as in ``(a [b) c]``; so this is no tree. `BREAK` ends a chunk.

The rules are those of A1111 (modules/prompt_parser.py, `parse_prompt_attention`), where a BREAK whose weight
is not 1 is encoded as a word. It takes linear time.
"""

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from farm.prompts.tree import limited


class Piece(NamedTuple):
    """A text that is tokenized by itself.

    Attributes:
        text: without the marks of emphasis.
        weight: of its tokens.
    """

    text: str
    weight: float


Section = tuple[Piece, ...]
"""What stands between two BREAKs; it begins with a chunk of its own."""

_KEPT = 5000
"""Texts whose pieces are kept: the cells of a job say the same again and again."""

ROUND = 1.1
SQUARE = 1 / 1.1

TOKEN = re.compile(
    r"""
    (?P<escaped>\\[()\[\]\\]?+)
    | (?P<opened>[(\[])
    | :\s*+(?P<number>[+-]?[.\d]++)\s*+\)
    | (?P<closed>[)\]])
    | [^\\()\[\]:]++ | :
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")


class _Bracket:
    """One that was opened, and what it multiplies its content by."""

    def __init__(self, opening: str) -> None:
        self.round = opening == "("
        self.factor = ROUND if self.round else SQUARE


_Event = str | _Bracket | bool
"""A text, a bracket that opens, or one that closes: True for a round one."""


@lru_cache(_KEPT)
def weighted(text: str) -> tuple[Section, ...]:
    """The pieces of a text, section by section. Neighbours of equal weight are joined; none is empty.

    Args:
        text: as it stands at some step, without tags, edits and alternations.
    """
    sections: list[list[Piece]] = [[]]
    for piece in _pieces(_events(text)):
        if piece is None:
            sections.append([])
        else:
            sections[-1].append(piece)
    return tuple(tuple(piece for piece in _joined(section) if piece.text) for section in sections)


@lru_cache(_KEPT)
def is_weighted(text: str) -> bool:
    """Whether some piece of a text has a weight of its own."""
    return any(piece.weight != 1 for section in weighted(text) for piece in section)


def _joined(pieces: list[Piece]) -> Iterator[Piece]:
    for weight, run in groupby(pieces, key=lambda piece: piece.weight):
        yield Piece("".join(piece.text for piece in run), weight)


def _events(text: str) -> list[_Event]:
    """Texts and brackets in order. The factor of a bracket is known once it is closed."""
    events: list[_Event] = []
    waiting: dict[bool, list[_Bracket]] = {True: [], False: []}
    for match in TOKEN.finditer(text):
        token, number = match[0], match["number"]
        if match["escaped"]:
            events.append(token[1:])
        elif match["opened"]:
            bracket = _Bracket(token)
            waiting[bracket.round].append(bracket)
            events.append(bracket)
        elif number and waiting[True]:
            factor = number_of(number)
            if factor is None:
                events.append(token[:-1])
            else:
                waiting[True][-1].factor = factor
            waiting[True].pop()
            events.append(True)
        elif match["closed"] and waiting[token == ")"]:
            waiting[token == ")"].pop()
            events.append(token == ")")
        else:
            events.append(token)
    return events


def number_of(text: str) -> float | None:
    """The number that a weight is; None if it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else limited(number)


def _pieces(events: list[_Event]) -> Iterator[Piece | None]:
    """Pieces with their weights; None where a section ends."""
    products = {True: [1.0], False: [1.0]}
    for event in events:
        if isinstance(event, _Bracket):
            product = products[event.round]
            product.append(limited(product[-1] * event.factor))
        elif isinstance(event, bool):
            products[event].pop()
        else:
            yield from _split(event, limited(products[True][-1] * products[False][-1]))


def _split(text: str, weight: float) -> Iterator[Piece | None]:
    """A text at its BREAKs, which take the space around them along."""
    first, *others = _BREAK.split(text)
    yield Piece(first.rstrip() if others else first, weight)
    for number, between in enumerate(others, start=1):
        yield None if math.isclose(weight, 1) else Piece("BREAK", -weight)
        yield Piece(between.strip() if number < len(others) else between.lstrip(), weight)
