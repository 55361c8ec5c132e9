"""How many rows a batch may have on a device."""

from collections.abc import Hashable
from typing import Protocol

import torch

from farm.render.buckets import bucket_within
from farm.render.remembered import Remembered

CPU_ROWS = 16
GPU_ROWS = 64
MPS_ROWS = 8
"""Apple's memory is the host's: it swaps long before it is out of memory."""

FULL_AREA = {"cpu": 32 * 32, "cuda": 64 * 64, "mps": 64 * 64}
"""Latents up to this many points are batched in full; larger ones in proportion fewer."""

FIRST_ROWS = 4
"""Of the first batch of a kind, where the memory that it takes can be measured."""

SAFE = 0.85
"""Of the memory that is free, how much a batch may be planned to take."""


class Measured(Protocol):
    """See `farm.render.memory.Memory`."""

    @property
    def free(self) -> int | None:
        """Bytes that can be had now."""


class Capacity:
    """The largest batch for each batch key.

    It starts from the area of the pictures. Where the device tells how much memory a batch took, the first
    batch of a key is a small one and the measure sets the limit; where it does not, or was wrong,
    out-of-memory lowers it. Both are remembered from run to run.

    Args:
        device: what the rows run on.
        rows: the largest batch of all; by the kind of device if not given.
        memory: of the device, if what batches take of it is measured.
        remembered: what earlier runs found out.
    """

    def __init__(
        self,
        device: torch.device,
        rows: int | None = None,
        memory: Measured | None = None,
        remembered: Remembered | None = None,
    ) -> None:
        self.largest = rows or {"cpu": CPU_ROWS, "mps": MPS_ROWS}.get(device.type, GPU_ROWS)
        self._full_area = FULL_AREA.get(device.type, 64 * 64)
        self._memory = memory
        self._remembered = Remembered() if remembered is None else remembered
        self._kept: set[Hashable] = set()
        self._limits: dict[Hashable, int] = {}  # asked for many times between two changes

    def limit(self, batch_key: Hashable) -> int:
        """The most rows of this key in one batch, at least 1."""
        if batch_key not in self._limits:
            self._limits[batch_key] = self._limit(batch_key)
        return self._limits[batch_key]

    def lower(self, batch_key: Hashable, rows: int) -> None:
        """Remembers that more than `rows` rows of this key do not fit."""
        if not _is_measured(batch_key):
            return
        self._remembered.lower(batch_key, bucket_within(max(1, min(rows, self.limit(batch_key)))))
        self._limits.pop(batch_key)

    def try_more(self, weights: Hashable) -> None:
        """Forgets what did not fit beside these weights: they have made room."""
        self._remembered.forget_lowered(weights)
        self._limits.clear()
        self._kept.clear()

    def room_changed(self) -> None:
        """Reckons anew: what was loaded takes room from all others, and what was let go gives some."""
        if self._memory is not None:
            self._limits = {key: limit for key, limit in self._limits.items() if key in self._kept}

    def keep(self, batch_key: Hashable) -> None:
        """Leaves the limit of a key as it is, unless it does not fit: its calls were made for that."""
        self._kept.add(batch_key)

    def note(self, batch_key: Hashable, rows: int, taken: int) -> None:
        """Learns from a call.

        Args:
            batch_key: of its rows.
            rows: how many it computed.
            taken: bytes of the device's memory that it took, beyond what lay there before.
        """
        if self._memory is not None and self._remembered.note(batch_key, rows, taken):
            self._limits.pop(batch_key, None)
            self._kept.discard(batch_key)

    def _limit(self, batch_key: Hashable) -> int:
        most = min(self._by_area(batch_key), self._remembered.most(batch_key) or self.largest)
        if self._memory is None or not _is_measured(batch_key):
            return most
        return min(most, self._fits(batch_key, self._memory))

    def _fits(self, batch_key: Hashable, memory: Measured) -> int:
        taken = self._remembered.bytes_a_row(batch_key)
        if taken is None:
            return FIRST_ROWS
        return bucket_within(int((memory.free or 0) * SAFE) // max(1, taken))

    def _by_area(self, batch_key: Hashable) -> int:
        shape = next((part for part in _parts(batch_key) if isinstance(part, torch.Size)), None)
        if shape is None:
            return self.largest
        area = shape[-1] * shape[-2]
        if area <= self._full_area:
            return self.largest
        return bucket_within(self.largest * self._full_area // area)


def _is_measured(batch_key: Hashable) -> bool:
    """Whether the memory of such batches is: to load a checkpoint or to read numbers back is none."""
    return _parts(batch_key)[0] not in ("open", "fetch")


def _parts(batch_key: Hashable) -> tuple[Hashable, ...]:
    return batch_key if isinstance(batch_key, tuple) else (batch_key,)
