"""diffusers' UNet compiled, as its own documentation advises; the farm's is compiled by the farm."""

from typing import Any

import torch

MODE = "reduce-overhead"
"""That of `torch.compile` which records CUDA graphs; on a CPU it is the default."""


def compiled(unet: Any) -> Any:
    """The network, compiled anew for each shape that it is called with; on a card with its channels last."""
    if unet.device.type == "cuda":
        unet.to(memory_format=torch.channels_last)
    return torch.compile(unet, mode=MODE, dynamic=False, fullgraph=True)
