"""Where the time of a device goes: calls, rows and seconds of each kind of request."""

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch

from farm.render.capacity import Capacity
from farm.render.requests import Decode, EncodeText, Open, Predict, Request
from farm.render.runner import LoadNetworks, Runner

KINDS: dict[type, str] = {Open: "open", EncodeText: "text", Predict: "unet", Decode: "vae"}


@dataclass(slots=True)
class Kind:
    """What a kind of request came to.

    Attributes:
        calls: of the network.
        rows: in these.
        room: the most rows that so many calls can have.
        seconds: of the device.
    """

    calls: int = 0
    rows: int = 0
    room: int = 0
    seconds: float = 0.0


class AccountedRunner(Runner):
    """A runner that keeps account.

    On a GPU a call returns before it is done, so its time is taken by marks in the device's own queue: from
    when the device comes to the call until it has done the last of it, waiting for Python included.

    Args:
        load: as of any runner.
        device: as of any runner.
        capacity: of the batches.
    """

    def __init__(self, load: LoadNetworks, device: torch.device, capacity: Capacity) -> None:
        super().__init__(load, device)
        self._capacity = capacity
        self._on_gpu = device.type == "cuda"
        self._kinds: dict[str, Kind] = defaultdict(Kind)
        self._marks: list[tuple[Kind, torch.cuda.Event, torch.cuda.Event]] = []

    def run(self, requests: list[Request]) -> list[Any]:
        """As any runner."""
        kind = self._kinds[KINDS[type(requests[0])]]
        kind.calls += 1
        kind.rows += len(requests)
        kind.room += self._capacity.limit(requests[0].batch_key)
        if not self._on_gpu:
            started = time.perf_counter()
            answers = super().run(requests)
            kind.seconds += time.perf_counter() - started
            return answers
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        answers = super().run(requests)
        end.record()
        self._marks.append((kind, begin, end))
        return answers

    def kinds(self) -> dict[str, Kind]:
        """By the names of `KINDS`; waits for the device."""
        if self._marks:
            torch.cuda.synchronize()
        for kind, begin, end in self._marks:
            kind.seconds += begin.elapsed_time(end) / 1000
        self._marks.clear()
        return dict(self._kinds)
