"""Files that are used beside checkpoints, as runners ask for them: by their names."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from farm.errors import CellFailed
from farm.weights.hypernetwork import Hypernetwork

LoadVae = Callable[[str, float, torch.device, torch.dtype], Any]
"""Reads a VAE by its name onto a device, given the scaling factor of latents."""


class LoraFile(NamedTuple):
    """A LoRA that was read.

    Attributes:
        tensors: on the host.
        metadata: of a safetensors file.
    """

    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]


def _no_vae(name: str, *_: Any) -> Any:
    raise CellFailed(f"the VAE {name!r} is not on this machine")


class Files(NamedTuple):
    """Where they come from.

    Attributes:
        vae: reads one that is not a checkpoint's own.
        lora: reads a LoRA, by its name in tags; None if there is no file of that name.
        hypernetwork: reads a hypernetwork, as well.
    """

    vae: LoadVae = _no_vae
    lora: Callable[[str], LoraFile | None] = lambda _: None
    hypernetwork: Callable[[str], Hypernetwork | None] = lambda _: None


NO_FILES = Files()
