"""A device with little memory, played by the CPU: what lies on it is counted, and runs out."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from farm.render.memory import HOST, Memory


class Forgetful(Memory):
    """The host's own, which has no room for what is not in use."""

    def __init__(self) -> None:
        super().__init__(HOST)

    def can_keep(self, kept: int, more: int) -> bool:
        return False


class Scarce(Memory):
    """Counts the bytes of weights; they are freed when nobody holds them any more.

    Attributes:
        host_limit: bytes that the host keeps of what is not in use.
        limit: bytes that there are.
        used: by weights.
        most: that were ever used.
    """

    spared = 0
    is_hosts = False
    host_limit = 0

    def __init__(self, limit: int) -> None:
        super().__init__(HOST)
        self.limit, self.used, self.most = limit, 0, 0
        self.lent: set[int] = set()  # addresses of what lies here
        self.at_home: set[int] = set()  # and of weights on the host

    @property
    def total(self) -> int:
        return self.limit

    @property
    def free(self) -> int:
        return self.limit - self.used

    def needs(self, count: int) -> None:
        """What a network does that computes in so many bytes."""
        if count > self.free:
            raise torch.OutOfMemoryError(f"out of memory: {count} of {self.free} bytes")

    def can_keep(self, kept: int, more: int) -> bool:
        return kept + more <= self.host_limit

    def room(self, count: int) -> torch.Tensor:
        self.needs(count)
        array = np.empty(count + ALIGNED, dtype=np.uint8)
        skipped = -array.ctypes.data % ALIGNED
        address = array.ctypes.data + skipped
        self.used += count
        self.most = max(self.most, self.used)
        self.lent.add(address)
        weakref.finalize(array, self._freed, address, count)
        return torch.from_numpy(array[skipped : skipped + count])

    def host_room(self, count: int) -> torch.Tensor:
        room = super().host_room(count)
        self.at_home.add(room.data_ptr())
        return room

    def bring(self, network: nn.Module) -> None:
        for parameter in network.parameters():
            if base(parameter) not in self.lent:
                size = parameter.numel() * parameter.element_size()
                place = self.room(size).view(parameter.dtype).as_strided(parameter.shape, parameter.stride())
                parameter.data = place.copy_(parameter.data)

    def _freed(self, address: int, count: int) -> None:
        self.used -= count
        self.lent.discard(address)


class Telling(Scarce):
    """Tells what calls took, as a card does."""

    @contextmanager
    def watched(self) -> Iterator[Callable[[], int | None]]:
        before, self.most = self.used, self.used
        yield lambda: self.most - before


ALIGNED = 64
"""Bytes: as PyTorch's own memory, or its sums round otherwise."""

HARMLESS = (torch.ops.aten.copy_.default, torch.ops.aten.is_pinned.default)


class OnDevice(TorchDispatchMode):
    """Raises when something is computed with weights that lie on the host.

    Args:
        memory: of the device.
    """

    def __init__(self, memory: Scarce) -> None:
        super().__init__()
        self.memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:
            if (answer := func.decompose(*args, **(kwargs or {}))) is not NotImplemented:
                return answer
        if not func.is_view and func not in HARMLESS:
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            assert not self.memory.at_home & {base(tensor) for tensor in tensors}, f"{func} on the host"
        return func(*args, **(kwargs or {}))


def base(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
