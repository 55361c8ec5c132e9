"""What a UNet is told besides its latents and the time: named tensors, which come of texts and sizes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

Added = tuple[torch.Tensor, ...]
"""Of a batch or a row: the pooled text and the sizes, where a UNet takes them; else nothing."""


class Encoded(NamedTuple):
    """A chunk of text as the text encoders see it.

    Attributes:
        states: of each encoder `(tokens, channels)`.
        pooled: the whole of it, as the last encoder projects it, `(channels,)`; None where none does.
    """

    states: tuple[torch.Tensor, ...]
    pooled: torch.Tensor | None = None


class Conditioning(NamedTuple):
    """What one row of a UNet is told.

    Attributes:
        states: of the text, those of all encoders beside each other `(tokens, channels)`.
        pooled: of the text's first chunk `(channels,)`; None where there is none.
        sizes: of the picture `(6,)`, in pixels; None where the UNet takes none. In the order of SDXL
            (Podell et al. 2023, arXiv:2307.01952, section 2.2): height and width of the original, top and
            left of the crop, height and width wanted.
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None
    sizes: torch.Tensor | None = None

    @property
    def added(self) -> Added:
        """What goes with the states; nothing where the UNet takes no sizes."""
        return () if self.sizes is None or self.pooled is None else (self.pooled, self.sizes)


def stacked(rows: Sequence[Conditioning]) -> tuple[torch.Tensor, Added]:
    """Of the rows of a batch, which are told alike: `(rows, tokens, channels)`, and what goes with them."""
    states = torch.stack([row.states for row in rows])
    if not rows[0].added:
        return states, ()
    return states, tuple(map(torch.stack, zip(*(row.added for row in rows), strict=True)))


def in_diffusers(added: Added) -> dict[str, Any] | None:
    """As its UNets want it, named `added_cond_kwargs` there."""
    return dict(zip(("text_embeds", "time_ids"), added, strict=True)) if added else None
