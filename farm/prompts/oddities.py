"""What in a prompt looks like a mistake. None of it is an error: the language takes any text."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from farm.errors import quoted
from farm.prompts.brackets import bare, marks
from farm.prompts.emphasis import number_of
from farm.prompts.grammar import parse, parse_negative
from farm.prompts.tree import Edit, Prompt, Tag

STRONG = 5.0
"""Weights beyond this, either way, spoil pictures."""

_EXCERPT = 24

Found = tuple[int, int, str]
"""Start and end in the prompt without its tags, and what is odd about it."""


@dataclass(frozen=True, slots=True, order=True)
class Oddity:
    """Something that looks like a mistake.

    Attributes:
        start: of it in the text as typed, in characters from 0.
        end: behind it.
        what: is odd about it, and what it is taken for.
    """

    start: int
    end: int
    what: str

    def at(self, text: str) -> str:
        """One line about it, with its place in the text; characters count from 1."""
        excerpt = text[self.start : min(self.end, self.start + _EXCERPT)]
        return f"character {self.start + 1}, {quoted(excerpt)}: {self.what}"


def oddities(text: str, steps: int, negative: bool = False) -> list[Oddity]:
    """What looks like a mistake in a prompt, in the order of the text.

    Args:
        text: as typed.
        steps: that editing is laid over.
        negative: whether it is a negative prompt.
    """
    prompt = parse_negative(text) if negative else parse(text)
    whole = "AND".join(map(str, prompt.parts))
    found = list(_of_negative(whole) if negative else _of_parts(prompt))
    starts = accumulate((len(str(part)) + len("AND") for part in prompt.parts), initial=0)
    for part, start in zip(prompt.parts, starts):
        end = len(str(part)) - len(part.ending)
        body = whole[start : start + end]
        found += [(start + at, start + to, what) for at, to, what in _of_part(body, steps)]
    return sorted({*map(_Typed(prompt.tags), found), *_of_tags(prompt.tags)})


class _Typed:
    """Brings the tags back into places that were counted without them."""

    def __init__(self, tags: tuple[Tag, ...]) -> None:
        self._offsets = [tag.offset for tag in tags]
        self._lengths = list(accumulate((len(str(tag)) for tag in tags), initial=0))

    def __call__(self, found: Found) -> Oddity:
        start, end, what = found
        before = self._lengths[bisect_right(self._offsets, start)]
        until = self._lengths[bisect_left(self._offsets, end)]
        return Oddity(start + before, end + max(before, until), what)


def _of_tags(tags: tuple[Tag, ...]) -> Iterator[Oddity]:
    before = 0
    for tag in tags:
        start, length = tag.offset + before, len(str(tag))
        before += length
        for argument in tag.arguments[1:2]:
            if number_of(argument) is None and "=" not in argument:
                yield Oddity(start, start + length, f"the weight {quoted(argument)} is not a number")


def _of_negative(text: str) -> Iterator[Found]:
    for match in re.finditer(r"\bAND\b", text):
        yield (*match.span(), "joins nothing in a negative prompt: it is a word there")
    for match in re.finditer(r"<\w++:", text):
        yield (*match.span(), "does nothing in a negative prompt: it is text there")


def _of_parts(prompt: Prompt) -> Iterator[Found]:
    """The weights at the ends."""
    end = 0
    for part in prompt.parts:
        end += len(str(part))
        start = end - len(part.ending)
        if len(prompt.parts) == 1 and part.ending.strip():
            yield start, end, f"a number at the end is the weight of the whole prompt, here {part.weight:g}"
        elif abs(part.weight) > STRONG:
            yield start, end, f"a weight of {part.weight:g} is very strong"
        end += len("AND")


def _of_part(text: str, steps: int) -> Iterator[Found]:
    if (start := bare(text)) is not None:
        what = "a bar outside of [ ]" if text[start] == "|" else "a backslash before nothing"
        yield start, start + 1, f"{what}: nothing around it is edited or alternates, as in A1111"
    yield from _of_edits(text, steps)
    yield from _of_emphasis(text)


def _of_edits(text: str, steps: int) -> Iterator[Found]:
    opened: list[int] = []
    for mark in marks(text):
        if mark.kind in ("EDIT", "ALTERNATION"):
            opened.append(mark.start)
        elif mark.kind in ("WHEN", "CLOSE"):
            start = opened.pop()
            if mark.kind == "WHEN":
                what = _of_when(text[mark.start + 1 : mark.end - 1], steps)
                yield from [(start, mark.end, what)] if what else []


def _of_when(when: str, steps: int) -> str:
    last = Edit(None, (), when).last(steps)
    if last < 1:
        return "changes before the first step"
    if last >= steps - 1:  # evaluations count from 0, and the first that is later than `last` changes it
        return f"never changes: there are {steps} steps, which count from 0"
    return ""


_BRACKET = re.compile(r"\\[()\[\]\\]?+|[(\[]|:\s*+(?P<number>[+-]?[.\d]++)\s*+\)|[)\]]")


def _of_emphasis(text: str) -> Iterator[Found]:
    """Brackets without partners, odd weights, BREAKs that end nothing."""
    structure = {mark.start for mark in marks(text)} | {mark.end - 1 for mark in marks(text)}
    opened: dict[str, list[int]] = {"(": [], "[": []}
    groups: list[tuple[int, int]] = []
    for match in _BRACKET.finditer(text):
        token, number = match[0], match["number"]
        if match.end() - 1 in structure or token.startswith("\\"):
            continue
        if token in opened:
            opened[token].append(match.start())
        elif mine := opened["(" if token.endswith(")") else "["]:
            start = mine.pop()
            groups += [(start, match.end())] if number_of(number or "") != 1 else []
            yield from _of_weight(number, *match.span())
        else:
            yield (*match.span(), "closes nothing: it is text; write \\ before it to say so")
    for start in sorted(opened["("] + opened["["]):
        groups.append((start, len(text)))
        yield start, len(text), "is never closed: it holds to the end; write \\ before it if it is text"
    yield from _of_breaks(text, groups)


def _of_breaks(text: str, groups: Sequence[tuple[int, int]]) -> Iterator[Found]:
    starts, ends = sorted(start for start, _ in groups), sorted(end for _, end in groups)
    for match in re.finditer(r"\bBREAK\b", text):
        if bisect_left(starts, match.start()) > bisect_left(ends, match.end()):
            yield (*match.span(), "ends no chunk inside brackets: it is encoded as a word, as in A1111")


def _of_weight(number: str | None, start: int, end: int) -> Iterator[Found]:
    if number is None:
        return
    weight = number_of(number)
    if weight is None:
        yield start, end, f"{quoted(number)} is not a number: it is text"
    elif abs(weight) > STRONG:
        yield start, end, f"a weight of {weight:g} is very strong"
