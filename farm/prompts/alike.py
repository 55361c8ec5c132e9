"""Texts before a tokenizer has looked at them: what is the same to the encoder, and how long it is, about."""

import math
import re
from collections.abc import Hashable
from functools import lru_cache

from farm.prompts.emphasis import Section, is_weighted, weighted
from farm.prompts.strands import Said

CHUNK = 75
"""Tokens that the text encoder takes at once, its marks left out."""

_WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\w\s\0]|_)+")
"""What CLIP's tokenizer makes a token of, or several."""

_KEPT = 20_000
"""Texts that are looked at once: the cells of a job say the same again and again."""


@lru_cache(_KEPT)
def chunks_of(said: Said) -> int:
    """The most chunks that a text of it has, if each of its words is one token."""
    return max(
        sum(max(1, math.ceil(len(_WORD.findall(section)) / CHUNK)) for section in words_of(text))
        for text in (*said.texts, *said.others)
    )


@lru_cache(_KEPT)
def words_of(text: str) -> tuple[str, ...]:
    """Each section's words as CLIP has them: small letters, space of any kind, weights left out."""
    sections = [" ".join(_uncut(section).lower().split()) for section in weighted(text)]
    if len(sections) > 1 and not sections[-1]:  # a BREAK at the end begins nothing
        sections.pop()
    return tuple(sections)


def _uncut(section: Section) -> str:
    """The text of a section, with a mark where a weight begins inside of a word."""
    text = ""
    for piece in section:
        text += f"\0{piece.text}" if text and _is_cut(text[-1], piece.text[0]) else piece.text
    return text


def _is_cut(last: str, first: str) -> bool:
    """Whether they would be parts of one token; each digit is one of its own."""
    is_ending = last == "'" and first.isalpha()  # as in cat's
    return is_ending or _kind(last) == _kind(first) not in ("space", "digit")


def _kind(character: str) -> str:
    """Characters of one kind are a word to CLIP's tokenizer if they stand together."""
    if character.isspace():
        return "space"
    return "letter" if character.isalpha() else "digit" if character.isdigit() else "sign"


@lru_cache(_KEPT)
def first_words(said: Said, emphasis: str) -> tuple[Hashable, ...]:
    """Equal where the first texts are the same to the networks, filled up to as many sections.

    Args:
        said: by a row of guidance.
        emphasis: as `Settings.emphasis`; weights count only if they do anything.
    """
    text = said.schedule[0][1]
    if emphasis == "ignore" or not is_weighted(text):
        return words_of(text), sections_of(said)
    return words_of(text), sections_of(said), emphasis, weighted(text)


@lru_cache(_KEPT)
def sections_of(said: Said) -> int:
    """The most sections that a text of it has."""
    return max(len(words_of(text)) for text in (*said.texts, *said.others))
