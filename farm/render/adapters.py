"""Adapters beside a network for a while: what they add to its layers, row by row.

Weights are never changed: rows with adapters at different scales share a call, a change of scale costs
nothing, and nothing has to be restored.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from farm.weights.deltas import Delta
from farm.weights.layers import Layer

Addition = tuple[Mapping[str, Delta], torch.Tensor]
"""An adapter's deltas by the paths of layers, and their scale in each row of the batch `(rows,)`."""


class _Part(NamedTuple):
    """Of what is added to a module's output.

    Attributes:
        delta: of a layer.
        scales: of each row.
        outputs: of the module, those that are the layer's; None if all are.
    """

    delta: Delta
    scales: torch.Tensor
    outputs: slice | None


@contextmanager
def adapted(layers: Mapping[str, Layer], additions: Sequence[Addition]) -> Iterator[None]:
    """Adds to the output of each layer what adapters make of its input, times their scale in the row.

    Rows where all scales are 0 stay as they are to the bit, as long as what is added is finite. The host
    waits for nothing. What was compiled or captured before goes on without: PyTorch looks for no new hooks.

    Args:
        layers: of the network, as `layers_of` finds them; in any layout that `farm.render.tuning` makes.
        additions: on the network's device, the deltas in its type.
    """
    parts: dict[nn.Module, list[_Part]] = defaultdict(list)
    for deltas, given in additions:
        scales = given
        for path, delta in deltas.items():
            layer = layers[path]
            scales = scales.to(layer.module.weight.dtype)  # once for all; mixed types would be slow
            parts[layer.module].append(_Part(delta, scales, layer.outputs))
    hooks = [module.register_forward_hook(_Addition(each)) for module, each in parts.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Addition:
    """A forward hook."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> None:
        (x,) = arguments[:1]
        for delta, scales, outputs in self._parts:
            place = output if outputs is None else output[..., outputs]
            delta.add_to(place, x, scales.reshape(-1, *[1] * (output.ndim - 1)))
