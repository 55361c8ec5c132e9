"""Compiled networks: inductor's kernels, and CUDA graphs where there is a card."""

from collections.abc import Sequence
from typing import Any

import torch

MODE = "reduce-overhead"
"""That of `torch.compile` which records CUDA graphs; on a CPU it is the default."""


def compiled(unet: Any) -> Any:
    """The network, compiled anew for each shape that it is called with."""
    return torch.compile(unet, mode=MODE, dynamic=False, fullgraph=True)


class Bucketed:
    """A compiled UNet that is only called with a few numbers of rows: batches are filled up to one of them.

    Args:
        unet: compiled.
        buckets: numbers of rows; the largest is the most that it can be called with.
    """

    def __init__(self, unet: Any, buckets: Sequence[int]) -> None:
        self._unet = unet
        self._buckets = tuple(buckets)
        self.config = unet.config

    def __call__(
        self,
        latents: torch.Tensor,
        times: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        return_dict: bool,
    ) -> tuple[torch.Tensor]:
        """As a UNet with `return_dict=False`; what a graph answers lies where its next answer will."""
        rows = len(latents)
        bucket = min(bucket for bucket in self._buckets if bucket >= rows)
        filled = (_filled(tensor, bucket) for tensor in (latents, times, encoder_hidden_states))
        return (self._unet(*filled, return_dict=return_dict)[0][:rows].clone(),)


def _filled(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    return torch.cat([tensor, tensor[:1].expand(rows - len(tensor), *tensor.shape[1:])])
