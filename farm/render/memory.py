"""The memory of a device: how much there is, and how much of it is free."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from farm.weights.device_errors import is_out_of_memory

HOST = torch.device("cpu")

ORDINARY_POOL = (0, 0)
"""Of PyTorch's memory: the others belong to CUDA graphs."""


class Memory:
    """Of one device. Weights get their room through this, so that it can be made scarce.

    Args:
        device: whose. A CPU's memory is the host's, and nobody knows how much of that is free.

    Attributes:
        spared: bytes that weights leave, at first, to what is computed. At 512 × 512, in half precision, the
            VAE takes more: then they make room.
    """

    spared = 2**30

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._in_graphs = 0

    @property
    def total(self) -> int | None:
        """Bytes that this process may use; None if nobody knows."""
        if self.device.type == "cuda":
            fraction = torch.cuda.get_per_process_memory_fraction(self._index)
            return int(torch.cuda.mem_get_info(self._index)[1] * fraction)
        if self.device.type == "mps":
            return torch.mps.recommended_max_memory()
        return None

    @property
    def free(self) -> int | None:
        """Bytes of it that are not in use, by others neither; None if nobody knows."""
        total = self.total
        if total is None:
            return None
        if self.device.type == "mps":
            return total - torch.mps.current_allocated_memory()
        used = torch.cuda.memory_allocated(self._index)
        kept = torch.cuda.memory_reserved(self._index) - used - self._in_graphs  # by PyTorch, to use again
        return min(torch.cuda.mem_get_info(self._index)[0] + kept, total - used - self._in_graphs)

    @property
    def name(self) -> str:
        """Of devices that have as much: what was measured on one holds for all; empty where nothing is."""
        if self.device.type != "cuda":
            return ""
        return f"{torch.cuda.get_device_name(self._index)}, {(self.total or 0) >> 20} MiB"

    @contextmanager
    def watched(self) -> Iterator[Callable[[], int | None]]:
        """Around a batch: gives a function that tells the bytes which it took at its peak, of its own.

        PyTorch counts them on the host, so nothing waits for the card. None where nobody counts.
        """
        if self.device.type != "cuda":
            yield lambda: None
            return
        torch.cuda.reset_peak_memory_stats(self._index)
        before = torch.cuda.memory_allocated(self._index)
        yield lambda: max(0, torch.cuda.max_memory_allocated(self._index) - before)

    def count_graphs(self) -> None:
        """Takes note of what PyTorch keeps for CUDA graphs: nothing else can use it."""
        if self.device.type == "cuda":
            self._in_graphs = sum(
                segment["total_size"] - segment["allocated_size"]
                for segment in torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
                if segment["segment_pool_id"] != ORDINARY_POOL and segment["device"] == self._index
            )

    @property
    def _index(self) -> int:
        return torch.cuda.current_device() if self.device.index is None else self.device.index

    def bring(self, network: torch.nn.Module) -> None:
        """Moves a network onto the device."""
        network.to(self.device)

    def room(self, count: int) -> torch.Tensor:
        """So many bytes on the device.

        Raises:
            torch.OutOfMemoryError: there are not so many; on mps a RuntimeError that says so.
        """
        return torch.empty(count, dtype=torch.uint8, device=self.device)

    def host_room(self, count: int) -> torch.Tensor:
        """So many bytes on the host; page-locked, where CUDA copies from there and it can be had."""
        if self.device.type == "cuda":
            try:
                return torch.empty(count, dtype=torch.uint8, pin_memory=True)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
        return torch.empty(count, dtype=torch.uint8)

    def give_back(self) -> None:
        """Hands what PyTorch keeps to use again back to the device: pieces of it can be of no use.

        What only holds itself goes, too: what the compiler makes of a network does.
        """
        if self.device.type != "cpu":
            gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            self.count_graphs()
        elif self.device.type == "mps":
            torch.mps.empty_cache()
