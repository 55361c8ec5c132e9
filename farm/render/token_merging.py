"""Token merging: Bolya & Hoffman 2023 (arXiv:2303.17604), in self-attention at the highest resolution.

The first token of each tile of 2 × 2 is a destination. Of the others, those that are most like some
destination are averaged into it before attention; afterwards each of these gets what came of its destination.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.nn.functional import normalize

from farm.errors import CellFailed

Processor = Callable[..., torch.Tensor]


class Tiles(NamedTuple):
    """A grid of tokens, cut into tiles of 2 × 2.

    Attributes:
        destinations: the place of the first token of each tile.
        others: the places of all others.
    """

    destinations: torch.Tensor
    others: torch.Tensor


def tiles(height: int, width: int, device: torch.device | None = None) -> Tiles:
    """Cuts a grid of tokens, whose last row and column may be half tiles.

    The paper draws one token of each tile; A1111 takes the first, and so do we: a picture must come out
    alike whenever and beside whomever it is rendered.
    """
    row, column = (torch.arange(side, device=device) for side in (height, width))
    is_other = ((row % 2).unsqueeze(1) + column % 2).flatten() > 0
    order = is_other.int().argsort(stable=True)  # nothing that a GPU would have to be waited for
    count = ((height + 1) // 2) * ((width + 1) // 2)
    return Tiles(order[:count], order[count:])


class Merge(NamedTuple):
    """Which tokens of each row of a batch are merged into which.

    Attributes:
        alone: places of the tokens that stay as they are `(rows, kept)`.
        merged: places of those that do not `(rows, merged)`.
        into: the destination of each, as its number among them `(rows, merged)`.
        destinations: places of these `(destinations,)`.
    """

    alone: torch.Tensor
    merged: torch.Tensor
    into: torch.Tensor
    destinations: torch.Tensor


def find_merge(tokens: torch.Tensor, ratio: float, grid: Tiles) -> Merge:
    """Which tokens to merge: those of the greatest cosine similarity to a destination.

    A row's answer hangs on that row alone.

    Args:
        tokens: `(rows, height · width, channels)`.
        ratio: of the tokens that are merged; more than those that are no destination is as many as these.
        grid: of the tokens.
    """
    destinations, others = grid
    directions = normalize(tokens, dim=-1)
    similarities = directions[:, others] @ directions[:, destinations].mT
    best, into = similarities.max(dim=-1)
    order = best.sort(dim=-1, descending=True, stable=True).indices
    count = min(int(ratio * tokens.shape[1]), len(others))
    merged, alone = order[:, :count], order[:, count:]
    return Merge(others[alone], others[merged], into.gather(1, merged), destinations)


def merged(tokens: torch.Tensor, merge: Merge) -> torch.Tensor:
    """The tokens that are left, each the mean of what it stands for.

    Args:
        tokens: `(rows, height · width, channels)`.
        merge: what to merge.

    Returns:
        `(rows, kept + destinations, channels)`.
    """
    sources = _at(tokens, merge.merged)
    numbers = torch.arange(len(merge.destinations), device=tokens.device)
    # as a product of matrices, since scattered additions come in any order on a GPU
    belongs = (merge.into.unsqueeze(1) == numbers.unsqueeze(1)).to(tokens.dtype)
    sums = tokens[:, merge.destinations] + belongs @ sources
    return torch.cat([_at(tokens, merge.alone), sums / (1 + belongs.sum(-1, keepdim=True))], dim=1)


def unmerged(left: torch.Tensor, merge: Merge) -> torch.Tensor:
    """What came of the tokens that are left, at all places `(rows, height · width, channels)`."""
    kept = merge.alone.shape[1]
    alone, destinations = left[:, :kept], left[:, kept:]
    found = left.new_empty(len(left), left.shape[1] + merge.merged.shape[1], left.shape[2])
    found[:, merge.destinations] = destinations
    rows = torch.arange(len(left), device=left.device).unsqueeze(1)
    found[rows, merge.alone] = alone
    found[rows, merge.merged] = _at(destinations, merge.into)
    return found


def _at(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class _Merging:
    """An attention processor around another one, which sees fewer tokens."""

    def __init__(self, inner: Processor, ratio: float, grid: Tiles) -> None:
        self._inner = inner
        self._ratio = ratio
        self._grid = grid

    def __call__(self, attention: Any, hidden_states: torch.Tensor, **others: Any) -> torch.Tensor:
        merge = find_merge(hidden_states, self._ratio, self._grid)
        return unmerged(self._inner(attention, merged(hidden_states, merge), **others), merge)


@contextmanager
def tokens_merged(unet: Any, ratio: float, latents: torch.Tensor) -> Iterator[None]:
    """Lets the UNet's self-attention at the highest resolution merge tokens for a while.

    Args:
        unet: a `UNet2DConditionModel`.
        ratio: of the tokens, 0 to 0.75; 0 changes nothing.
        latents: that it will be shown `(rows, channels, height/8, width/8)`.

    Raises:
        CellFailed: the network has no self-attention.
    """
    if not ratio:
        yield
        return
    layers, grid = _self_attention(unet, latents)
    before = [layer.processor for layer in layers]
    try:
        for layer in layers:
            layer.set_processor(_Merging(layer.processor, ratio, grid))
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)


def _self_attention(unet: Any, latents: torch.Tensor) -> tuple[list[Any], Tiles]:
    """Of the first level that has any, in the encoder and in the decoder; and the grid of its tokens."""
    height, width = latents.shape[-2:]
    for down, up in zip(unet.down_blocks, reversed(unet.up_blocks)):
        blocks = [
            block
            for level in (down, up)
            for attention in getattr(level, "attentions", None) or ()
            for block in attention.transformer_blocks
        ]
        if found := [block.attn1 for block in blocks if not block.only_cross_attention]:
            return found, tiles(height, width, latents.device)
        height, width = -(-height // 2), -(-width // 2)
    raise CellFailed("token_merging_ratio: this network has no self-attention to merge tokens for")
