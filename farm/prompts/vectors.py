"""Vectors: what stands in a text where it names embeddings of textual inversion (arXiv:2208.01618)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from farm.errors import CellFailed, quoted


@dataclass(frozen=True, slots=True)
class Vector:
    """A position that a vector of an embedding fills.

    Attributes:
        key: names the embedding by its content, so that equal texts of other embeddings differ.
        index: of the vector, from 0.
    """

    key: str
    index: int


Token = int | Vector
"""What fills a position: the id of a token, or a vector."""


@dataclass(frozen=True, slots=True)
class Name:
    """How a text names an embedding.

    Attributes:
        name: as prompts write it.
        ids: of its tokens.
        key: of the embedding.
        count: of its vectors.
    """

    name: str
    ids: tuple[int, ...]
    key: str
    count: int


class Names:
    """Finds the names of embeddings among tokens, as A1111 does.

    A name is found wherever its tokens stand (modules/textual_inversion/textual_inversion.py,
    `find_embedding_at_position`), the longest first, of equally long ones the first that was given. A token
    says whether it ends a word, so that no name is found at the beginning of a longer word; it is at the end
    of one, if the tokenizer cuts the word there.

    Args:
        names: of all embeddings; whether they are in capitals does not matter to CLIP's tokenizer.
        room: tokens that a chunk takes.
    """

    def __init__(self, names: Iterable[Name] = (), room: int = 0) -> None:
        self._room = room
        self._by_first: dict[int, list[Name]] = {}
        for one in sorted(names, key=lambda one: len(one.ids), reverse=True):
            if one.ids:
                self._by_first.setdefault(one.ids[0], []).append(one)

    def units(self, tokens: Sequence[int]) -> Iterator[tuple[Token, ...]]:
        """What must not be divided, in turn: a token, or all vectors of an embedding.

        Args:
            tokens: of a piece of a text, without begin and end marks.

        Raises:
            CellFailed: an embedding has more vectors than there is room for in a chunk.
        """
        place = 0
        while place < len(tokens):
            found = self._found(tokens, place)
            if found is None:
                yield (tokens[place],)
                place += 1
            else:
                yield self._vectors(found)
                place += len(found.ids)

    def _found(self, tokens: Sequence[int], place: int) -> Name | None:
        for one in self._by_first.get(tokens[place], ()):
            if tuple(tokens[place : place + len(one.ids)]) == one.ids:
                return one
        return None

    def _vectors(self, found: Name) -> tuple[Token, ...]:
        if found.count > self._room:
            lack = f"the text encoder takes {self._room} at once"
            raise CellFailed(f"the embedding {quoted(found.name)} has {found.count} vectors: {lack}")
        return tuple(Vector(found.key, index) for index in range(found.count))
