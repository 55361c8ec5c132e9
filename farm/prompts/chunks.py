"""Chunks: what the text encoder takes at once, 75 tokens and their weights."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from farm.prompts.emphasis import Section

BACKTRACK = 20
"""How many tokens may go over into the next chunk, for a chunk to end with a comma."""

Tokenize = Callable[[str], Sequence[int]]
"""Gives the ids of a text's tokens, without begin and end marks."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some tokens in a row, not filled up.

    Attributes:
        tokens: their ids.
        weights: of each.
    """

    tokens: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def is_weighted(self) -> bool:
        """Whether some token has a weight of its own."""
        return any(weight != 1 for weight in self.weights)


def chunked(sections: Iterable[Section], tokenize: Tokenize, comma: int | None, room: int) -> list[Chunk]:
    """The chunks of a text, at least one.

    A text that does not fit goes on in the next chunk: from behind the last comma if that is among the last
    20 tokens, as in A1111 (modules/sd_hijack_clip.py, `tokenize_line`).

    Args:
        sections: each begins a chunk of its own.
        tokenize: of the checkpoint.
        comma: the id of ``,`` at the end of a word; None if there is none.
        room: tokens that a chunk takes.
    """
    first, *others = (list(_filled(section, tokenize, comma, room)) for section in sections)
    for section in others:
        first += section
    if len(first) > 1 and not first[-1].tokens:  # a BREAK at the end begins no chunk
        first.pop()
    return first


def _filled(section: Section, tokenize: Tokenize, comma: int | None, room: int) -> Iterator[Chunk]:
    """The chunks of a section; the last one may be empty if it is the only one."""
    tokens: list[tuple[int, float]] = []
    last_comma = None
    for token, weight in ((token, piece.weight) for piece in section for token in tokenize(piece.text)):
        if len(tokens) == room:
            cut = room
            if token != comma and last_comma is not None and room - last_comma <= BACKTRACK:
                cut = last_comma + 1
            yield _chunk(tokens[:cut])
            tokens, last_comma = tokens[cut:], None
        elif token == comma:
            last_comma = len(tokens)
        tokens.append((token, weight))
    yield _chunk(tokens)


def _chunk(tokens: Sequence[tuple[int, float]]) -> Chunk:
    return Chunk(tuple(token for token, _ in tokens), tuple(weight for _, weight in tokens))
