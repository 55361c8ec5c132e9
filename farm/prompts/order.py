"""The parts of a prompt in another order."""

from collections.abc import Iterable, Sequence
from itertools import pairwise


def reordered(text: str, parts: Sequence[str]) -> str:
    """The text with some of its parts in another order, as A1111's "Prompt order".

    The places in which the parts stand first are filled, from the left, with the parts in the order given;
    everything between stays. Parts that are not in the text are left out. The parts must not overlap.

    Args:
        text: a prompt.
        parts: that stand in it, in the order wanted.
    """
    places = sorted(_places(text, parts))
    present = [part for part in parts if part in text]
    pieces: list[str] = []
    end = 0
    for (start, after, _), part in zip(places, present, strict=True):
        pieces += [text[end:start], part]
        end = after
    return "".join([*pieces, text[end:]])


def overlapping(text: str, parts: Iterable[str]) -> tuple[str, str] | None:
    """Two of the parts that share a place in the text, if there are any."""
    for (_, end, first), (start, _, second) in pairwise(sorted(_places(text, parts))):
        if start < end:
            return first, second
    return None


def _places(text: str, parts: Iterable[str]) -> list[tuple[int, int, str]]:
    """Where each part stands first: its start, its end, and the part."""
    found = ((text.find(part), part) for part in parts)
    return [(start, start + len(part), part) for start, part in found if start >= 0]
