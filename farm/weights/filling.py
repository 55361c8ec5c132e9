"""Networks that are made without memory of their own, and filled with the tensors of a file."""

from collections.abc import Mapping
from typing import Any

import torch


class Unfit(ValueError):
    """Tensors that do not make the network they should; the message is one clear line."""


def filled(network: Any, state: Mapping[str, torch.Tensor], dtype: torch.dtype, called: str) -> Any:
    """A network that was made on the device `meta`, with these tensors as its own.

    Args:
        network: as it was made.
        state: its tensors, all of them; they are not copied unless they are of another type.
        dtype: of the network.
        called: for messages.

    Raises:
        Unfit: there are others, or they have other shapes.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise Unfit(f"tensor {name} of its {called} is {tensor.dtype}, not numbers with fractions")
    wanted = network.state_dict()
    if missing := sorted(wanted.keys() - state.keys()):
        raise Unfit(f"its {called} lacks {len(missing)} tensors, {missing[0]} among them")
    if others := sorted(state.keys() - wanted.keys()):
        raise Unfit(f"{len(others)} tensors of its {called} have no place in it, {others[0]} among them")
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            there, here = list(tensor.shape), list(wanted[name].shape)
            raise Unfit(f"tensor {name} of its {called} has the shape {there}, not {here}")
    network.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
    _count_positions(network)
    return network


def _count_positions(network: Any) -> None:
    """Text encoders count their positions in a buffer, which files do not have."""
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                assert name == "position_ids", name
                setattr(module, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))
