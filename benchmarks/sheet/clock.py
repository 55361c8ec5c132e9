"""What each kind of request takes of a GPU."""

from collections import defaultdict
from typing import Any

import torch

from farm.render.buckets import Limit
from farm.render.checkpoints import LoadNetworks
from farm.render.requests import Request
from farm.render.runner import Runner


class ClockedRunner(Runner):
    """A runner that marks in a GPU's own queue where each call begins and ends.

    The host's clock, by which the engine keeps account, cannot tell: a call returns before it is done, and
    whichever call has to wait waits for those before it. On a CPU nothing is marked.

    Args:
        load: as of any runner.
        device: as of any runner.
        compiled_up_to: as of any runner.
    """

    def __init__(self, load: LoadNetworks, device: torch.device, compiled_up_to: Limit | None = None) -> None:
        super().__init__(load, device, compiled_up_to=compiled_up_to)
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def run(self, requests: list[Request]) -> list[Any]:
        """As any runner."""
        if not self._on_gpu:
            return super().run(requests)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        answers = super().run(requests)
        end.record()
        self._marks.append((requests[0].kind.request, begin, end))
        return answers

    def seconds(self) -> dict[str, float]:
        """By the kind of request, since this was last asked; waits for the GPU.

        Gaps inside of a call count as the call's.
        """
        found: dict[str, float] = defaultdict(float)
        if self._marks:
            torch.cuda.synchronize()
        for kind, begin, end in self._marks:
            found[kind] += begin.elapsed_time(end) / 1000
        self._marks.clear()
        return {kind: round(seconds, 3) for kind, seconds in found.items()}
