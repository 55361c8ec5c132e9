"""The memory of a device: how much there is, and how much of it is free."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from farm.weights.device_errors import is_out_of_memory

HOST = torch.device("cpu")

HOST_SHARE = 1 / 4
"""Of the host's memory: what a process keeps there at most, only to save time."""

HOST_SPARED = 1 / 2
"""Of the host's memory: what stays free or can be had from the system's own caches, by all processes."""

MEMINFO = Path("/proc/meminfo")
"""Linux's; other systems have none."""

CGROUP = Path("/sys/fs/cgroup")
CONTAINERS = (
    (CGROUP / "memory.max", CGROUP / "memory.current", CGROUP / "memory.stat", "inactive_file"),
    (
        CGROUP / "memory/memory.limit_in_bytes",
        CGROUP / "memory/memory.usage_in_bytes",
        CGROUP / "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Of both kinds of Linux's control groups: limit, use, and what of that is only the system's cache."""

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

    @property
    def is_hosts(self) -> bool:
        """Whether it is the host's own."""
        return self.device.type == "cpu"

    def can_keep(self, kept: int, more: int) -> bool:
        """Whether the host has room for what is kept there only to save time.

        Where the system does not tell how much of its memory could be had, there is none.

        Args:
            kept: bytes that are there already.
            more: bytes that are to come.
        """
        total, available = _host_memory()
        return kept + more <= total * HOST_SHARE and available - more >= total * HOST_SPARED

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


def _host_memory() -> tuple[int, int]:
    """Bytes that there are, and that could be had: of the container, if it has a limit; 0 if nobody knows."""
    said = _numbers(MEMINFO)
    total, available = 1024 * said.get("MemTotal:", 0), 1024 * said.get("MemAvailable:", 0)
    for limit_file, used_file, stat_file, cached in CONTAINERS:
        try:
            limit, used = int(limit_file.read_text()), int(used_file.read_text())
        except (OSError, ValueError):  # there is none; or it says `max`
            continue
        total = min(total, limit)
        available = min(available, limit - used + _numbers(stat_file).get(cached, 0))
    return total, available


def _numbers(path: Path) -> dict[str, int]:
    """Of a file with a name and a number in each line; empty if it is not there."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    words = (line.split() for line in lines)
    return {name: int(number) for name, number, *_ in words if number.isdecimal()}
