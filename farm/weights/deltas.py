"""What adapters add to layers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Self

import torch
from torch import nn
from torch.nn.functional import conv2d, group_norm, layer_norm, linear


@dataclass(frozen=True, slots=True)
class Convolution:
    """How a convolution moves over its input.

    Attributes:
        stride: in pixels, down and across.
        padding: of zeros, likewise.
        dilation: likewise.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def __call__(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What comes out with some weight."""
        return conv2d(x, weight, bias, self.stride, self.padding, self.dilation)


def convolution_of(module: nn.Module) -> Convolution | None:
    """How a layer moves over its input; None if it is linear."""
    if not isinstance(module, nn.Conv2d):
        return None
    assert not isinstance(module.padding, str)
    return Convolution(module.stride, module.padding, module.dilation)


@dataclass(frozen=True, eq=False)
class Delta(ABC):
    """What an adapter adds to a layer, at weight 1."""

    @abstractmethod
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """What is added to the layer's output.

        Args:
            x: the layer's input `(rows, …, inputs)`, or `(rows, inputs, height, width)` of a convolution.

        Returns:
            `(rows, …, outputs)` or `(rows, outputs, height, width)`, or what broadcasts to it.
        """

    def add_to(self, output: torch.Tensor, x: torch.Tensor, scales: torch.Tensor) -> None:
        """Adds it to a layer's output in place.

        Args:
            output: of the layer.
            x: the layer's input.
            scales: of each row, with as many dimensions as the output, in its type.
        """
        output.addcmul_(self(x), scales)

    @abstractmethod
    def matrix(self) -> torch.Tensor:
        """What is added to the layer's weight instead, in its shape, float32."""

    def bias(self) -> torch.Tensor | None:
        """What is added to the layer's bias then, float32 `(outputs,)`; None if nothing is."""
        return None

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same on a device, in a type."""
        return replace(self, **{name: each.to(device, dtype) for name, each in self._tensors().items()})

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return sum(each.numel() * each.element_size() for each in self._tensors().values())

    def _tensors(self) -> dict[str, torch.Tensor]:
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: each for name, each in found.items() if isinstance(each, torch.Tensor)}


@dataclass(frozen=True, slots=True, eq=False)
class LowRank(Delta):
    """A product of two thin matrices: LoRA, Hu et al. 2021 (arXiv:2106.09685), and LoCon.

    Attributes:
        down: `(rank, inputs)`, or `(rank, inputs, height, width)` of a convolution.
        up: `(outputs, rank)`, or `(outputs, rank, 1, 1)`.
        convolution: of the layer.
        middle: `(rank, rank, height, width)`; then `down` is 1 × 1 (CP decomposition). Or None.
    """

    down: torch.Tensor
    up: torch.Tensor
    convolution: Convolution | None = None
    middle: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """As `Delta`'s."""
        if self.convolution is None:
            return linear(linear(x, self.down), self.up)
        if self.middle is None:
            return conv2d(self.convolution(x, self.down), self.up)
        return conv2d(self.convolution(conv2d(x, self.down), self.middle), self.up)

    def add_to(self, output: torch.Tensor, x: torch.Tensor, scales: torch.Tensor) -> None:
        """As `Delta`'s; a linear layer's output is read and written once, and nothing else is as large."""
        if self.convolution is not None:
            super(LowRank, self).add_to(output, x, scales)
            return
        hidden = linear(x, self.down).mul_(scales)
        output.view(-1, output.shape[-1]).addmm_(hidden.flatten(0, -2), self.up.mT)

    def matrix(self) -> torch.Tensor:
        """As `Delta`'s."""
        down, up = self.down.float(), self.up.float().flatten(1)
        if self.middle is not None:
            return torch.einsum("oi,ij...,jn->on...", up, self.middle.float(), down.flatten(1))
        return (up @ down.flatten(1)).reshape(len(up), *down.shape[1:])


@dataclass(frozen=True, slots=True, eq=False)
class Kronecker(Delta):
    """A Kronecker product: LoKr, Yeh et al. 2023 (arXiv:2309.14859). The product itself is never made.

    Attributes:
        outer: `(a, b)`.
        inner: `(c, d)`, or `(c, d, height, width)` of a convolution, of a · c outputs and b · d inputs.
        convolution: of the layer.
    """

    outer: torch.Tensor
    inner: torch.Tensor
    convolution: Convolution | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """As `Delta`'s."""
        groups, inputs = self.outer.shape[1], self.inner.shape[1]
        if self.convolution is None:
            apart = x.reshape(*x.shape[:-1], groups, inputs)
            return (self.outer @ linear(apart, self.inner)).flatten(-2)
        apart = x.reshape(-1, inputs, *x.shape[2:])
        inner = self.convolution(apart, self.inner)
        inner = inner.reshape(-1, groups, *inner.shape[1:])
        return torch.einsum("ab,nbchw->nachw", self.outer, inner).flatten(1, 2)

    def matrix(self) -> torch.Tensor:
        """As `Delta`'s."""
        outer, inner = self.outer.float(), self.inner.float()
        return torch.kron(outer.reshape(*outer.shape, *[1] * (inner.ndim - 2)), inner)


@dataclass(frozen=True, slots=True, eq=False)
class Full(Delta):
    """A whole weight; it takes as much memory and time as the layer itself.

    Attributes:
        weight: in the shape of the layer's; None if only the bias changes.
        added: to the bias `(outputs,)`, or None.
        shape: of the layer's weight.
        convolution: of the layer.
    """

    weight: torch.Tensor | None
    added: torch.Tensor | None
    shape: tuple[int, ...]
    convolution: Convolution | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """As `Delta`'s."""
        if self.weight is None:
            assert self.added is not None
            return self.added if self.convolution is None else self.added[:, None, None]
        if self.convolution is None:
            return linear(x, self.weight, self.added)
        return self.convolution(x, self.weight, self.added)

    def matrix(self) -> torch.Tensor:
        """As `Delta`'s."""
        return torch.zeros(self.shape) if self.weight is None else self.weight.float()

    def bias(self) -> torch.Tensor | None:
        """As `Delta`'s."""
        return None if self.added is None else self.added.float()


@dataclass(frozen=True, slots=True, eq=False)
class Norm(Delta):
    """Of a normalization, whose own scale and shift are for the same normalized numbers.

    Attributes:
        weight: `(channels,)`.
        added: to the bias `(channels,)`.
        epsilon: of the layer.
        groups: of channels; None if it is over the last dimension.
    """

    weight: torch.Tensor
    added: torch.Tensor
    epsilon: float
    groups: int | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """As `Delta`'s."""
        if self.groups is None:
            return layer_norm(x, self.weight.shape, self.weight, self.added, self.epsilon)
        return group_norm(x, self.groups, self.weight, self.added, self.epsilon)

    def matrix(self) -> torch.Tensor:
        """As `Delta`'s."""
        return self.weight.float()

    def bias(self) -> torch.Tensor | None:
        """As `Delta`'s."""
        return self.added.float()


@dataclass(frozen=True, slots=True, eq=False)
class Together(Delta):
    """One thing after the other.

    Attributes:
        deltas: of the same layer.
    """

    deltas: tuple[Delta, ...]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """As `Delta`'s."""
        return reduce(torch.add, (delta(x) for delta in self.deltas))

    def add_to(self, output: torch.Tensor, x: torch.Tensor, scales: torch.Tensor) -> None:
        """As `Delta`'s."""
        for delta in self.deltas:
            delta.add_to(output, x, scales)

    def matrix(self) -> torch.Tensor:
        """As `Delta`'s."""
        return reduce(torch.add, (delta.matrix() for delta in self.deltas))

    def bias(self) -> torch.Tensor | None:
        """As `Delta`'s."""
        biases = [bias for delta in self.deltas if (bias := delta.bias()) is not None]
        return reduce(torch.add, biases) if biases else None

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """As `Delta`'s."""
        return replace(self, deltas=tuple(delta.to(device, dtype) for delta in self.deltas))

    @property
    def size(self) -> int:
        """As `Delta`'s."""
        return sum(delta.size for delta in self.deltas)
