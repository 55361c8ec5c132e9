"""Chunks: what the text encoder takes at once, 75 tokens and their weights."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from farm.prompts.emphasis import Section
from farm.prompts.vectors import Names, Token

BACKTRACK = 20
"""How many tokens may go over into the next chunk, for a chunk to end with a comma."""

Tokenize = Callable[[str], Sequence[int]]
"""Gives the ids of a text's tokens, without begin and end marks."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some tokens in a row, not filled up.

    Attributes:
        tokens: their ids, and vectors of embeddings.
        weights: of each.
    """

    tokens: tuple[Token, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def is_weighted(self) -> bool:
        """Whether some token has a weight of its own."""
        return any(weight != 1 for weight in self.weights)


def chunked(
    sections: Iterable[Section], tokenize: Tokenize, comma: int | None, room: int, names: Names | None = None
) -> list[Chunk]:
    """The chunks of a text, at least one.

    A text that does not fit goes on in the next chunk: from behind the last comma if that is among the last
    20 tokens, as in A1111 (modules/sd_hijack_clip.py, `tokenize_line`). The vectors of an embedding are not
    divided: where they do not fit, the next chunk begins with them, as there.

    Args:
        sections: each begins a chunk of its own.
        tokenize: of the checkpoint.
        comma: the id of ``,`` at the end of a word; None if there is none.
        room: tokens that a chunk takes.
        names: of embeddings; a name counts for as many tokens as its embedding has vectors.
    """
    names = names or Names()
    first, *others = (list(_filled(_units(section, tokenize, names), comma, room)) for section in sections)
    for section in others:
        first += section
    if len(first) > 1 and not first[-1].tokens:  # a BREAK at the end begins no chunk
        first.pop()
    return first


_Unit = tuple[tuple[Token, ...], float]
"""What must not be divided, and its weight."""


def _units(section: Section, tokenize: Tokenize, names: Names) -> Iterator[_Unit]:
    """Names are found within a piece, since pieces of other weights are tokenized apart, as in A1111."""
    for piece in section:
        for unit in names.units(tokenize(piece.text)):
            yield unit, piece.weight


def _filled(units: Iterable[_Unit], comma: int | None, room: int) -> Iterator[Chunk]:
    """The chunks of a section; the last one may be empty if it is the only one."""
    tokens: list[tuple[Token, float]] = []
    last_comma = None
    for unit, weight in units:
        is_comma = unit == (comma,)
        if len(tokens) == room:
            cut = room
            if not is_comma and last_comma is not None and room - last_comma <= BACKTRACK:
                cut = last_comma + 1
            yield _chunk(tokens[:cut])
            tokens, last_comma = tokens[cut:], None
        elif is_comma:
            last_comma = len(tokens)
        if len(tokens) + len(unit) > room:
            yield _chunk(tokens)
            tokens, last_comma = [], None
        tokens += [(token, weight) for token in unit]
    yield _chunk(tokens)


def _chunk(tokens: Sequence[tuple[Token, float]]) -> Chunk:
    return Chunk(tuple(token for token, _ in tokens), tuple(weight for _, weight in tokens))
