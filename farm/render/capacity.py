"""How many rows a batch may have on a device."""

from collections.abc import Hashable

import torch

CPU_ROWS = 16
GPU_ROWS = 64
FULL_AREA = {"cpu": 32 * 32, "cuda": 64 * 64, "mps": 64 * 64}
"""Latents up to this many points are batched in full; larger ones in proportion fewer."""


class Capacity:
    """The largest batch for each batch key; out-of-memory lowers it for good.

    Args:
        device: what the rows run on.
        rows: the largest batch of all; by the kind of device if not given.
    """

    def __init__(self, device: torch.device, rows: int | None = None) -> None:
        self.largest = rows or (CPU_ROWS if device.type == "cpu" else GPU_ROWS)
        self._full_area = FULL_AREA.get(device.type, 64 * 64)
        self._lowered: dict[Hashable, int] = {}

    def limit(self, batch_key: Hashable) -> int:
        """The most rows of this key in one batch, at least 1."""
        return min(self._by_area(batch_key), self._lowered.get(batch_key, self.largest))

    def lower(self, batch_key: Hashable, rows: int) -> None:
        """Remembers that more than `rows` rows of this key do not fit."""
        self._lowered[batch_key] = max(1, min(rows, self.limit(batch_key)))

    def _by_area(self, batch_key: Hashable) -> int:
        shape = next((part for part in _parts(batch_key) if isinstance(part, torch.Size)), None)
        if shape is None:
            return self.largest
        area = shape[-1] * shape[-2]
        return max(1, min(self.largest, self.largest * self._full_area // area))


def _parts(batch_key: Hashable) -> tuple[Hashable, ...]:
    return batch_key if isinstance(batch_key, tuple) else (batch_key,)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the host had too little memory; only CUDA has an exception of its own for it."""
    text = str(error).lower()
    spoken = "out of memory" in text or "can't allocate memory" in text  # MPS, the CPU's allocator
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and spoken
    )
