"""Texts with vectors of embeddings among their tokens, as a text encoder takes them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from farm.errors import CellFailed, quoted
from farm.prompts.vectors import Token, Vector
from farm.render.requests import EncodeText
from farm.render.transfers import Transfers
from farm.weights.embedding import ONLY, Embedding

PLACEHOLDER = 0
"""The id at the positions of vectors, as in A1111: neither an end mark nor what the encoder sees."""


def ids_of(tokens: Sequence[Token]) -> list[int]:
    """An id for each position."""
    return [PLACEHOLDER if isinstance(token, Vector) else token for token in tokens]


@contextmanager
def vectors_shown(
    encoder: Any, rows: Sequence[EncodeText], transfers: Transfers, name: str = ONLY
) -> Iterator[None]:
    """Lets a text encoder see the vectors of embeddings for a while, at their places in the rows of a batch.

    They take the place of what tokens are looked up as, so that positions are added to both.

    Args:
        encoder: CLIP's text model.
        rows: that it will be shown.
        transfers: to its device.
        name: of the encoder, by which embeddings name it.

    Raises:
        CellFailed: an embedding is not for this encoder.
    """
    found = [
        (row, place, token, one.embeddings[token.key])
        for row, one in enumerate(rows)
        for place, token in enumerate(one.tokens)
        if isinstance(token, Vector)
    ]
    if not found:  # nothing at all is otherwise than without embeddings
        yield
        return
    lookup = encoder.get_input_embeddings()
    for *_, embedding in found:
        _check_width(embedding, name, lookup.embedding_dim)
    vectors = transfers.stack([embedding.vectors[name][token.index] for _, _, token, embedding in found])
    at_rows, at_places = transfers.put([[row, place] for row, place, *_ in found], torch.int64).unbind(1)

    def shown(_: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.index_put((at_rows, at_places), vectors.to(output.dtype))

    hook = lookup.register_forward_hook(shown)
    try:
        yield
    finally:
        hook.remove()


def _check_width(embedding: Embedding, name: str, width: int) -> None:
    if name not in embedding.vectors:
        has = ", ".join(embedding.vectors)
        raise CellFailed(f"the embedding {quoted(embedding.name)} has vectors for {has}, none for {name}")
    if (its := embedding.widths[name]) != width:
        takes = f"the checkpoint's text encoder takes {width}"
        raise CellFailed(
            f"the embedding {quoted(embedding.name)} is of another family: "
            f"its vectors have {its} channels, {takes}"
        )
