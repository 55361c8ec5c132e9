"""What in a prompt looks like a mistake. None of it is an error: the language takes any text."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from farm.errors import quoted
from farm.prompts.brackets import Mark, bare, marks
from farm.prompts.emphasis import TOKEN, number_of
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


def oddities(text: str, steps: int, evaluations: int, negative: bool = False) -> list[Oddity]:
    """What looks like a mistake in a prompt, in the order of the text.

    Args:
        text: as typed.
        steps: that editing is laid over.
        evaluations: how often the model is asked.
        negative: whether it is a negative prompt.
    """
    prompt = parse_negative(text) if negative else parse(text)
    whole = "AND".join(map(str, prompt.parts))
    found = list(_of_negative(whole) if negative else _of_parts(prompt))
    starts = accumulate((len(str(part)) + len("AND") for part in prompt.parts), initial=0)
    for part, start in zip(prompt.parts, starts):
        body = whole[start : start + len(str(part)) - len(part.ending)]
        found += [(start + at, start + to, what) for at, to, what in _of_part(body, steps, evaluations)]
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
    """Where AND joins nothing, the weights at the ends, and what is nearly a tag."""
    end = 0
    for part in prompt.parts:
        first, end = end, end + len(str(part))
        start = end - len(part.ending)
        if len(prompt.parts) > 1 and not str(part)[: start - first].strip():
            joint = first - len("AND") if first else end
            yield joint, joint + len("AND"), f"joins nothing: an empty text has the weight {part.weight:g}"
        if len(prompt.parts) == 1 and part.ending.strip():
            yield start, end, f"a number at the end is the weight of the whole prompt, here {part.weight:g}"
        elif abs(part.weight) > STRONG:
            yield start, end, f"a weight of {part.weight:g} is very strong"
        end += len("AND")
    for match in _NEARLY_TAGS.finditer("AND".join(map(str, prompt.parts))):
        yield (*match.span(), "begins no tag, but text; a tag is <lora:name:weight>")


_NEARLY_TAGS = re.compile(r"<\s*+(?:lora|lyco|hypernet)\b")


def _of_part(text: str, steps: int, evaluations: int) -> Iterator[Found]:
    tokens = marks(text)
    alone = bare(text)
    if alone is not None:
        yield _of_bare(text, *alone)
    yield from _of_edits(text, tokens, steps, evaluations)
    structure = {mark.start for mark in tokens} | {mark.end - 1 for mark in tokens}
    yield from _of_emphasis(text, structure)
    yield from _of_near_misses(text, structure, _NEAR_MISSES if alone is None else _NEAR_MISSES[:-1])


def _of_bare(text: str, start: int, inside: bool) -> Found:
    what = "a backslash before nothing"
    if text[start] == "|":
        what = (
            "a bar beside a colon or a lone bracket is no alternation" if inside else "a bar outside of [ ]"
        )
    variants = "; variants in { } want dynamic_prompts in the job" if _VARIANTS.search(text) else ""
    return start, start + 1, f"{what}: nothing around it is edited or alternates, as in A1111{variants}"


_VARIANTS = re.compile(r"\{[^{}|]*+\|[^{}]*+\}")


def _of_edits(text: str, tokens: Sequence[Mark], steps: int, evaluations: int) -> Iterator[Found]:
    opened: list[Mark] = []
    colons: list[int] = [0]
    for mark in tokens:
        if mark.kind in ("EDIT", "ALTERNATION"):
            opened.append(mark)
            colons.append(0)
        elif mark.kind == "COLON":
            colons[-1] += 1
        elif mark.kind in ("WHEN", "CLOSE"):
            start, alone = opened.pop().start, not colons.pop()
            if mark.kind == "WHEN":
                what = _of_when(text[mark.start + 1 : mark.end - 1], steps, evaluations, alone)
                yield from [(start, mark.end, what)] if what else []


def _of_when(when: str, steps: int, evaluations: int, alone: bool) -> str:
    last = Edit(None, (), when).last(steps)
    if last < 1:
        return "changes before the first step"
    if last >= evaluations - 1:
        return f"never changes: the model is asked {evaluations} times, counted from 0"
    if alone and 0.6 <= float(when) < 1:
        return f"shows nothing before step {last + 1}; less weight would be ( :{when.strip()})"
    return ""


def _of_emphasis(text: str, structure: Collection[int]) -> Iterator[Found]:
    """Brackets without partners, odd weights, BREAKs that end nothing."""
    opened: dict[str, list[int]] = {"(": [], "[": []}
    groups: list[tuple[int, int]] = []
    for match in TOKEN.finditer(text):
        token, number = match[0], match["number"]
        if match["escaped"] or match.end() - 1 in structure or token[-1] not in "()[]":
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
            yield (
                *match.span(),
                "ends no chunk inside brackets: it is a word of negative weight, as in A1111",
            )


def _of_weight(number: str | None, start: int, end: int) -> Iterator[Found]:
    if number is None:
        return
    weight = number_of(number)
    if weight is None:
        yield start, end, f"{quoted(number)} is not a number: it is text"
    elif abs(weight) > STRONG:
        yield start, end, f"a weight of {weight:g} is very strong"


Patterns = Sequence[tuple[re.Pattern[str], str]]

_NUMBER = r"\s*+[+-]?+[.\d]++\s*+"
_NEAR_MISSES: Patterns = (
    (
        re.compile(rf"\([^()\[\]:]*+:(?!{_NUMBER}\))\s*+[-+\w]*+[.,]?+\w*+\s*+\)"),
        "has no weight, but text behind its colon; a weight is a number such as 1.2",
    ),
    (
        re.compile(rf"\([^()\[\]:]*+:{_NUMBER},(?!\d+\))"),
        "has no weight there, but text; weights stand before the closing bracket",
    ),
    (
        re.compile(r"__[\w*/-]+?__"),
        "is text; wildcards want dynamic_prompts in the job",
    ),
    (
        re.compile(r"\[[^\[\]()|:]*+:[^\[\]()|]*+\]"),
        "is no edit, since no step ends it: it is text of less weight",
    ),
)  # fmt: skip


def _of_near_misses(text: str, structure: Collection[int], patterns: Patterns) -> Iterator[Found]:
    for pattern, what in patterns:
        for match in pattern.finditer(text):
            if match.start() not in structure:
                yield (*match.span(), what)
