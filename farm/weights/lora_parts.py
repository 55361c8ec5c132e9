"""The tensors that a file of LoRA has for one layer become what is added to it.

The formulas are those of the papers: LoRA (arXiv:2106.09685), and LoCon, LoHa and LoKr (arXiv:2309.14859),
with the names of tensors that LyCORIS writes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from farm.weights.deltas import Convolution, Delta, Full, Kronecker, LowRank, Norm, Together, convolution_of
from farm.weights.layers import Computed, Layer

Parts = Mapping[str, torch.Tensor]
"""The tensors of one layer by `Key.part`."""

Scale = Callable[[int | None], float]
"""alpha / rank by rank, which is None of what is not made of two thin matrices."""

UNSUPPORTED = {"magnitude": "a DoRA", "rotation": "an OFT", "on_input": "an IA3", "glora": "a GLoRA"}
"""What is no sum of a layer and something else, by the parts that tell."""


class Misfit(ValueError):
    """A tensor is for another layer."""


class Kind(NamedTuple):
    """A way to write down a delta.

    Attributes:
        needs: parts, of each group one.
        may_have: other parts.
        make: a delta, of the parts.
    """

    needs: tuple[tuple[str, ...], ...]
    may_have: tuple[str, ...]
    make: Callable[[Parts, "Target"], Delta]


class Target(NamedTuple):
    """What a delta must fit.

    Attributes:
        shape: of the layer's weight.
        module: the layer's.
        scale: alpha / rank.
    """

    shape: tuple[int, ...]
    module: Computed
    scale: Scale

    @property
    def convolution(self) -> Convolution | None:
        """How the layer moves over its input."""
        return convolution_of(self.module)


def delta_of(parts: Parts, layer: Layer, scale: Scale) -> tuple[Delta | None, tuple[str, ...]]:
    """What some tensors add to their layer, and the parts that are not used; None if none is.

    Args:
        parts: without alpha.
        layer: that they are for.
        scale: alpha / rank.

    Raises:
        Misfit: they are of other sizes than the layer.
        ValueError: they do not go together.
    """
    target = Target(layer.shape, layer.module, scale)
    for part, tensor in parts.items():
        if tensor.ndim < (1 if part.startswith("diff") else 2) or not tensor.numel():
            raise ValueError(f"{part} is {_size(tensor.shape)}")
    for kind in _KINDS:
        uses = {part for group in kind.needs for part in group if part in parts}
        if not uses:
            continue
        if lacks := [group for group in kind.needs if not uses.intersection(group)]:
            raise ValueError(f"it lacks {lacks[0][0]}")
        if kind.make is not _full and len(layer.shape) < 2:
            raise Misfit("it is a normalization")
        uses.update(kind.may_have)
        delta = kind.make(parts, target)
        if kind.make is not _full and "diff_b" in parts:  # as ComfyUI writes what it extracts
            uses.add("diff_b")
            delta = Together((delta, _full({"diff_b": parts["diff_b"]}, target)))
        return delta, tuple(part for part in parts if part not in uses)
    return None, tuple(parts)


def _low_rank(parts: Parts, target: Target) -> Delta:
    down, up, middle = parts["down"], parts["up"], parts.get("mid")
    rank, (outputs, inputs, *kernel) = len(down), target.shape
    ones = [1] * len(kernel)
    if middle is not None:
        middle, kernel = _fitting("mid", middle, (up.shape[1], rank, *kernel)), ones
    down = _fitting("down", down, (rank, inputs, *kernel))
    up = _fitting("up", up, (outputs, up.shape[1] if middle is not None else rank, *ones))
    return LowRank(*_balanced(down, up * target.scale(rank)), target.convolution, middle)


def _hadamard(parts: Parts, target: Target) -> Delta:
    """The element-wise product of two products of thin matrices; of rank r, it is one of rank r²."""
    outputs, inputs, *kernel = target.shape
    across, rank = math.prod(target.shape[1:]), len(parts["hada_w1_b"])
    scale = target.scale(rank)
    if "hada_t1" in parts or "hada_t2" in parts:
        halves = [
            _tucker(parts, f"hada_t{half}", f"hada_w{half}_a", f"hada_w{half}_b", target.shape)
            for half in (1, 2)
        ]
        return Full(halves[0] * halves[1] * scale, None, target.shape, target.convolution)
    ups, downs = [], []
    for half in (1, 2):
        a, b = f"hada_w{half}_a", f"hada_w{half}_b"
        ups.append(_fitting(a, parts[a], (outputs, len(parts[b]))))
        downs.append(_fitting(b, parts[b], (len(parts[b]), across)))
    if len(downs[0]) * len(downs[1]) * (outputs + across) > outputs * across:  # the whole is less
        weight = (ups[0] @ downs[0]) * (ups[1] @ downs[1]) * scale
        return Full(weight.reshape(target.shape), None, target.shape, target.convolution)
    up = torch.einsum("oi,oj->oij", *ups).flatten(1)
    down = torch.einsum("in,jn->ijn", *downs).flatten(0, 1)
    down, up = _balanced(down, up * scale)
    ones = [1] * len(kernel)
    return LowRank(down.reshape(-1, inputs, *kernel), up.reshape(*up.shape, *ones), target.convolution)


def _kronecker(parts: Parts, target: Target) -> Delta:
    outputs, inputs, *kernel = target.shape
    ranks = [len(parts[part]) for part in ("lokr_w2_b", "lokr_w1_b") if part in parts]
    outer = parts["lokr_w1"] if "lokr_w1" in parts else _product(parts, "lokr_w1")
    if outer.ndim != 2 or outputs % outer.shape[0] or inputs % outer.shape[1]:
        raise Misfit(f"lokr_w1 is {_size(outer.shape)}, which does not divide {_size(target.shape)}")
    shape = (outputs // outer.shape[0], inputs // outer.shape[1], *kernel)
    if "lokr_w2" in parts:
        inner = _fitting("lokr_w2", parts["lokr_w2"], shape)
    elif "lokr_t2" in parts:
        inner = _tucker(parts, "lokr_t2", "lokr_w2_a", "lokr_w2_b", shape)
    else:
        inner = _fitting("lokr_w2", _product(parts, "lokr_w2"), shape)
    inner = inner * target.scale(ranks[0] if ranks else None)
    return Kronecker(*_balanced(outer, inner), target.convolution)


def _full(parts: Parts, target: Target) -> Delta:
    weight, bias = parts.get("diff"), parts.get("diff_b")
    weight = None if weight is None else _fitting("diff", weight, target.shape)
    bias = None if bias is None else _fitting("diff_b", bias, target.shape[:1])
    if isinstance(norm := target.module, nn.LayerNorm | nn.GroupNorm):
        zeros = torch.zeros(target.shape)
        groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else None
        return Norm(zeros if weight is None else weight, zeros if bias is None else bias, norm.eps, groups)
    return Full(weight, bias, target.shape, target.convolution)


_KINDS = (
    Kind((("up",), ("down",)), ("mid",), _low_rank),
    Kind(
        (("hada_w1_a",), ("hada_w1_b",), ("hada_w2_a",), ("hada_w2_b",)), ("hada_t1", "hada_t2"), _hadamard
    ),
    Kind(
        (("lokr_w1", "lokr_w1_a", "lokr_w1_b"), ("lokr_w2", "lokr_w2_a", "lokr_w2_b")), ("lokr_t2",),
        _kronecker,
    ),
    Kind((("diff", "diff_b"),), (), _full),
)  # fmt: skip


def _part(parts: Parts, name: str) -> torch.Tensor:
    if name not in parts:
        raise ValueError(f"it lacks {name}")
    return parts[name]


def _product(parts: Parts, name: str) -> torch.Tensor:
    a, b = _part(parts, f"{name}_a"), _part(parts, f"{name}_b").flatten(1)
    if a.ndim != 2 or a.shape[1] != len(b):
        raise ValueError(f"{name}_a is {_size(a.shape)} and {name}_b {_size(b.shape)}: there is no product")
    return a @ b


def _tucker(parts: Parts, core: str, out: str, into: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weight of such a shape whose core has one number for each pair of ranks and place of the kernel."""
    outputs, inputs, *kernel = shape
    t, a, b = (_part(parts, name) for name in (core, out, into))
    a, b = _fitting(out, a, (len(a), outputs)), _fitting(into, b, (len(b), inputs))
    return torch.einsum("ij...,ip,jn->pn...", _fitting(core, t, (len(a), len(b), *kernel)), a, b)


def _fitting(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor in a shape: files have convolutions of 1 × 1 as matrices and the other way around."""
    if len(tensor) != shape[0] or tensor.numel() != math.prod(shape):
        raise Misfit(f"{name} is {_size(tensor.shape)}, where {_size(shape)} fits")
    return tensor.reshape(shape)


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "a number"


def _balanced(down: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same product, with more of the small factor: times alpha / rank it is beneath fp16's least numbers.

    By a power of two, so that nothing is rounded.
    """
    large, small = float(down.abs().max()), float(up.abs().max())
    if not 0 < small < large < math.inf:
        return down, up
    factor = 2.0 ** round(math.log2(large / small) / 2)
    return down / factor, up * factor
