"""Hypernetworks in a UNet: they change what attention makes its keys and values of, for a call.

As in A1111 (modules/hypernetworks/hypernetwork.py), every attention of a transformer block is meant whose
context is as wide as some networks of the file, be it the text or the picture's own features. Of a context x
keys are made of x + k(x) · strength, and values of x + v(x) · strength; several hypernetworks do so one after
the other.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from farm.weights.hypernetwork import Hypernetwork


class Applied(NamedTuple):
    """A hypernetwork in a call.

    Attributes:
        hypernetwork: in the UNet's type, on its device.
        strengths: of each row of the batch `(rows,)`, on the device; a row of strength 0 is as without it.
    """

    hypernetwork: Hypernetwork
    strengths: torch.Tensor


Name = TypeVar("Name", bound=Hashable)


def chained(rows: Sequence[Sequence[tuple[Name, float]]]) -> list[tuple[Name, list[float]]]:
    """One order in which hypernetworks can act for all rows of a batch, each row's own kept.

    Rows of other hypernetworks, or of the same in another order, can so share a call: of strength 0, one
    does nothing.

    Args:
        rows: for each, what acts on it, with strengths, in order.

    Returns:
        What acts, with the strength for each row.
    """
    left = [list(row) for row in rows]
    found = []
    while any(left):
        firsts = Counter(row[0][0] for row in left if row)
        [(name, _)] = firsts.most_common(1)
        found.append((name, [row.pop(0)[1] if row and row[0][0] == name else 0.0 for row in left]))
    return found


@contextmanager
def hypernetworks_applied(unet: Any, applied: Sequence[Applied]) -> Iterator[None]:
    """Lets hypernetworks act in a UNet for a while.

    Hooks of others on the projections of attention are to be there before.

    Args:
        unet: a `UNet2DConditionModel`, with its projections fused or apart.
        applied: in the order in which they act.
    """
    changes: dict[int, tuple[_Change, _Change]] = {}
    with ExitStack() as hooks:
        for attention in _attentions(unet) if applied else ():
            width = _projections(attention)[0].in_features
            acting = [one for one in applied if width in one.hypernetwork.networks]
            if acting and width not in changes:
                changes[width] = _Change(acting, width, 0), _Change(acting, width, 1)
            for hook in _hooked(attention, *changes[width]) if acting else ():
                hooks.callback(hook.remove)
        yield


def _attentions(unet: Any) -> Iterator[Any]:
    """Those that A1111 changes: of the transformer blocks, with themselves and with the text."""
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            yield from (attention for attention in (block.attn1, block.attn2) if attention is not None)


def _projections(attention: Any) -> list[Any]:
    """That of keys and that of values, or the one that both are fused into."""
    fused = getattr(attention, "to_kv" if attention.is_cross_attention else "to_qkv", None)
    return [attention.to_k, attention.to_v] if fused is None else [fused]


class _Change:
    """What hypernetworks make of a context, once for all attention that looks at the same one, as at a text.

    Args:
        acting: those with networks of the width.
        width: of the context.
        which: 0 for keys, 1 for values.
    """

    def __init__(self, acting: Sequence[Applied], width: int, which: int) -> None:
        self._chain = [
            (one.hypernetwork.networks[width][which], one.strengths.view(-1, 1, 1)) for one in acting
        ]
        self._known: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, context: torch.Tensor) -> torch.Tensor:
        if self._known is None or self._known[0] is not context:
            self._known = context, self._of(context)
        return self._known[1]

    def _of(self, context: torch.Tensor) -> torch.Tensor:
        for network, strengths in self._chain:
            changed = (context + network(context) * strengths).to(context.dtype)
            context = torch.where(strengths == 0, context, changed)  # also where the network overflows
        return context


def _hooked(attention: Any, keys: _Change, values: _Change) -> Iterator[Any]:
    match _projections(attention):
        case [fused]:
            yield fused.register_forward_hook(_Apart(keys, values, attention.inner_kv_dim))
        case [of_keys, of_values]:
            yield of_keys.register_forward_pre_hook(_given(keys))
            yield of_values.register_forward_pre_hook(_given(values))


def _given(change: _Change) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    return lambda _, inputs: (change(inputs[0]), *inputs[1:])


class _Apart:
    """A hook on a fused projection: what becomes keys and values has an input of its own, queries do not.

    The projection is called for each, so that what others have hooked to it counts there too, and a row that
    is not changed is answered the same to the bit, as by a product of the same shape.

    Args:
        keys: what is made of their input.
        values: of theirs.
        width: of each among what is answered, in which they come last.
    """

    def __init__(self, keys: _Change, values: _Change, width: int) -> None:
        self._changes = keys, values
        self._width = width
        self._is_within = False

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> Any:
        if self._is_within:
            return None
        self._is_within = True
        try:
            keys, values = (module(change(inputs[0]), *inputs[1:]) for change in self._changes)
        finally:
            self._is_within = False
        width = self._width
        parts = output[..., : -2 * width], keys[..., -2 * width : -width], values[..., -width:]
        return torch.cat(parts, dim=-1)
