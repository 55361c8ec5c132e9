"""Numbers on their way between host and device, without one waiting for the other."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

BATCHES_AHEAD = 2
"""Batches that the host may have handed to the device and that are not done."""


class Later(ABC):
    """An answer that is still on its way; the engine delivers it when it is there."""

    @property
    @abstractmethod
    def is_there(self) -> bool:
        """Whether `get` would not wait."""

    @abstractmethod
    def get(self) -> Any:
        """The answer, or the exception in its place; waits for it."""


class Transfers:
    """To and from one device; each direction is as of an ordinary CPU where there is no CUDA.

    Args:
        device: of the networks.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_cuda = device.type == "cuda"
        self._back: torch.cuda.Stream | None = None  # made when it is first used
        self._ahead: deque[torch.cuda.Event] = deque()

    @property
    def device(self) -> torch.device:
        """Of the networks."""
        return self._device

    def put(self, numbers: Sequence[Any], dtype: torch.dtype) -> torch.Tensor:
        """A list (of lists) of numbers as a tensor on the device."""
        tensor = torch.tensor(numbers, dtype=dtype, pin_memory=self._is_cuda)
        return tensor.to(self._device, non_blocking=self._is_cuda)

    def stack(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Tensors of the host, each a row, as one on the device."""
        stacked = torch.stack(list(tensors))
        if self._is_cuda:
            stacked = stacked.pin_memory()
        return stacked.to(self._device, non_blocking=self._is_cuda)

    def fetch(self, tensors: Sequence[torch.Tensor], then: Callable[[list[torch.Tensor]], list[Any]]) -> Any:
        """Tensors of a batch to the host, each `(rows, …)`, and what is made of them, one for each row.

        On a CUDA device the copy runs beside the next batch, and the answers are `Later`s.
        """
        if not tensors[0].is_cuda:
            return then([tensor.cpu() for tensor in tensors])
        back = self._back = self._back or _stream(self._device)
        back.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(back):
            copies = [_copied(tensor, back) for tensor in tensors]
        batch = _Fetched(copies, back.record_event(), then)
        return [_Row(batch, row) for row in range(len(copies[0]))]

    def pace(self) -> None:
        """Waits, after a batch was handed over, until only the last few of them are not done."""
        if self._is_cuda:
            self._ahead.append(torch.cuda.current_stream(self._device).record_event())
            if len(self._ahead) > BATCHES_AHEAD:
                self._ahead.popleft().synchronize()


def _stream(device: torch.device) -> torch.cuda.Stream:
    make: Callable[[torch.device], torch.cuda.Stream] = torch.cuda.Stream
    return make(device)


def _copied(tensor: torch.Tensor, stream: torch.cuda.Stream) -> torch.Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)  # its memory is not given away before the copy is done
    return host


class _Fetched:
    """A batch on its way to the host."""

    def __init__(
        self,
        copies: list[torch.Tensor],
        event: torch.cuda.Event,
        then: Callable[[list[torch.Tensor]], list[Any]],
    ) -> None:
        self._copies = copies
        self.event = event
        self._then = then
        self._answers: list[Any] | None = None

    def answers(self) -> list[Any]:
        if self._answers is None:
            self.event.synchronize()
            self._answers = self._then(self._copies)
            self._copies = []
        return self._answers


class _Row(Later):
    def __init__(self, batch: _Fetched, row: int) -> None:
        self._batch = batch
        self._row = row

    @property
    def is_there(self) -> bool:
        arrived: Callable[[], bool] = self._batch.event.query
        return arrived()

    def get(self) -> Any:
        return self._batch.answers()[self._row]
