"""Texts with vectors of embeddings among their tokens, as a text encoder takes them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch

from farm.errors import CellFailed, quoted
from farm.prompts.vectors import Token, Vector
from farm.render.requests import EncodeText
from farm.render.transfers import Transfers
from farm.weights.embedding import Embedding

NAMES = ("clip_l", "clip_g")
"""Of text encoders, as embeddings call them; the only one that a checkpoint has is the first."""

PLACEHOLDER = 0
"""The id at the positions of vectors, as in A1111: neither an end mark nor what the encoder sees."""


def ids_of(tokens: Sequence[Token]) -> list[int]:
    """An id for each position."""
    return [PLACEHOLDER if isinstance(token, Vector) else token for token in tokens]


@contextmanager
def vectors_shown(
    encoders: Sequence[Any], rows: Sequence[EncodeText], transfers: Transfers
) -> Iterator[None]:
    """Lets text encoders see the vectors of embeddings for a while, at their places in the rows of a batch.

    They take the place of what tokens are looked up as, so that positions are added to both.

    Args:
        encoders: CLIP's text models, in the order of `NAMES`.
        rows: that they will be shown.
        transfers: to their device.

    Raises:
        CellFailed: an embedding is not for these encoders.
    """
    found = [
        _Place(row, place, token.index, one.embeddings[token.key])
        for row, one in enumerate(rows)
        for place, token in enumerate(one.tokens)
        if isinstance(token, Vector)
    ]
    if not found:  # nothing at all is otherwise than without embeddings
        yield
        return
    where = transfers.put([[one.row, one.place] for one in found], torch.int64).unbind(1)
    with ExitStack() as hooks:
        for name, encoder in zip(NAMES, encoders):
            lookup = encoder.get_input_embeddings()
            vectors = transfers.stack([_vector(one, name, lookup.embedding_dim) for one in found])
            hooks.callback(lookup.register_forward_hook(_shown(where, vectors)).remove)
        yield


class _Place(NamedTuple):
    """Where a vector stands in a batch.

    Attributes:
        row: of the batch.
        place: in the row.
        number: of the vector.
        embedding: whose.
    """

    row: int
    place: int
    number: int
    embedding: Embedding


def _shown(where: tuple[torch.Tensor, ...], vectors: torch.Tensor) -> Callable[..., torch.Tensor]:
    return lambda _, inputs, output: output.index_put(where, vectors.to(output.dtype))


def _vector(one: _Place, encoder: str, width: int) -> torch.Tensor:
    """For a text encoder of a width."""
    embedding = one.embedding
    if encoder not in embedding.vectors:
        has = ", ".join(embedding.vectors)
        raise CellFailed(f"the embedding {quoted(embedding.name)} has vectors for {has}, none for {encoder}")
    if (its := embedding.widths[encoder]) != width:
        takes = f"the checkpoint's text encoder takes {width}"
        raise CellFailed(
            f"the embedding {quoted(embedding.name)} is of another family: "
            f"its vectors have {its} channels, {takes}"
        )
    return embedding.vectors[encoder][one.number]
