"""How much memory a device has, and how much a batch takes of it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch


class Memory(Protocol):
    """Of one device."""

    @property
    def name(self) -> str:
        """Of devices that have as much; what was measured on one holds for all of them."""

    def free(self) -> int:
        """Bytes that can be had now."""

    def watched(self) -> AbstractContextManager[Callable[[], int]]:
        """Around a batch: gives a function that tells the bytes which it took at its peak, of its own."""


class CudaMemory:
    """As PyTorch's allocator counts it, which is on the host: nothing waits for the card.

    Args:
        device: of kind `cuda`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        properties = torch.cuda.get_device_properties(device)
        self.name = f"{properties.name}, {properties.total_memory >> 20} MiB"

    def free(self) -> int:
        """What the card has, and what PyTorch keeps without using it."""
        kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return int(torch.cuda.mem_get_info(self._device)[0]) + kept

    @contextmanager
    def watched(self) -> Iterator[Callable[[], int]]:
        """As `Memory.watched`."""
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        yield lambda: max(0, torch.cuda.max_memory_allocated(self._device) - before)


def memory_of(device: torch.device) -> Memory | None:
    """None where nobody tells: on a CPU, whose batches are small anyway, and on Apple's cards."""
    return CudaMemory(device) if device.type == "cuda" else None
