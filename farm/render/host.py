"""Checkpoints on the host: those that left the device and may come back, and the one that is asked next."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import nn

from farm.render.memory import Memory
from farm.render.offloading import Group, bytes_of
from farm.render.requests import Weights
from farm.weights.checkpoint import Networks

PAGE = 4096
"""Bytes that a system reads of a file at least."""

PIECE = 2**27
"""Bytes of page-locked memory that are asked for at once: PyTorch rounds up to a power of two."""

Read = Callable[[Weights], Networks]


@dataclass(slots=True, eq=False)
class _Kept:
    """A checkpoint that was read.

    Attributes:
        networks: wherever they lie now.
        home: the host's memory for each of their parameters, with the module that has it, and its name there.
        size: in bytes.
        is_out: whether they are on the device.
    """

    networks: Networks
    home: tuple[tuple[nn.Module, str, torch.Tensor], ...]
    size: int
    is_out: bool = True

    def go_home(self) -> None:
        """Nothing is copied: weights do not change."""
        for module, name, place in self.home:
            module.get_parameter(name).data = place
        self.is_out = False


class Host:
    """Keeps as many as there is room for, those that were asked for last the longest.

    Args:
        read: reads one onto the host.
        memory: of the device.

    Attributes:
        largest: bytes of the largest that was read so far.
    """

    def __init__(self, read: Read, memory: Memory) -> None:
        self._read = read
        self._memory = memory
        self._kept: OrderedDict[Weights, _Kept] = OrderedDict()
        self._ahead: tuple[Weights, Future[Networks]] | None = None
        self.largest = 0
        self._thread = ThreadPoolExecutor(1, "read-ahead")

    def __contains__(self, weights: Weights) -> bool:
        """Whether it is kept, be it on the device by now."""
        return weights in self._kept

    def reserve(self, weights: Weights) -> bool:
        """Whether it is kept; then it stays until it is taken, whatever else needs room."""
        if weights not in self._kept:
            return False
        self._kept.move_to_end(weights)
        self._kept[weights].is_out = True
        return True

    def take(self, weights: Weights) -> Networks:
        """The networks, on the host, for the device: kept, read ahead, or read now.

        Raises:
            Exception: that reading raised, whenever that was.
        """
        if self.reserve(weights):
            return self._kept[weights].networks
        networks = self._taken_ahead(weights) or self._read(weights)
        self._note(weights, networks)
        return networks

    def leave(self, weights: Weights) -> None:
        """Lets networks that leave the device lie on the host, if there is room."""
        kept = self._kept.get(weights)
        if kept is None:
            return
        if self._memory.is_hosts and not self._makes_room(kept.size):
            del self._kept[weights]
        kept.go_home()

    def forget(self, weights: Weights) -> None:
        """Keeps nothing of these: they are placed otherwise, or broken."""
        self._kept.pop(weights, None)

    def let_go(self) -> bool:
        """Makes room on the host by letting go what is not in use; False if there is nothing."""
        gone = [weights for weights, kept in self._kept.items() if not kept.is_out]
        for weights in gone:
            del self._kept[weights]
        ahead = self._ahead is not None and self._ahead[1].done()
        if ahead:
            self._ahead = None
        return bool(gone) or ahead

    def read_ahead(self, weights: Weights) -> bool:
        """Begins to read a checkpoint; False until that is done, True if there is nothing to wait for.

        One alone is read ahead, the next one when that is taken; and none where room is short, as far as can
        be told from the largest so far.
        """
        if weights in self._kept:
            return True
        if self._ahead is None:
            if not self.largest:
                return False
            if not self._makes_room(self.largest):
                return True
            self._ahead = weights, self._thread.submit(self._read_through, weights)
        return self._ahead[0] == weights and self._ahead[1].done()

    def done_with(self, weights: Weights) -> None:
        """Lets it go if it was read ahead: those who would have asked for it have failed before they did."""
        if self._ahead is not None and self._ahead[0] == weights and self._ahead[1].done():
            self._ahead = None

    def close(self) -> None:
        """Ends the thread, after what it is reading."""
        self._thread.shutdown(cancel_futures=True)

    def _taken_ahead(self, weights: Weights) -> Networks | None:
        """None if these were not read ahead.

        What reads others is waited for: libraries change PyTorch for the whole process while they load.
        """
        if self._ahead is None:
            return None
        name, reading = self._ahead
        if name != weights:
            reading.exception()
            return None
        self._ahead = None
        return reading.result()

    def _read_through(self, weights: Weights) -> Networks:
        """In the thread: all of it, since of files that are mapped nothing is read yet."""
        device = self._memory.device
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        with torch.inference_mode():  # as an engine reads
            networks = self._read(weights)
            if device.type == "cuda":
                page_lock(_parameters(networks), self._memory)
            else:
                read_through(_parameters(networks))
        return networks

    def _note(self, weights: Weights, networks: Networks) -> None:
        size = bytes_of(_parameters(networks))
        self.largest = max(self.largest, size)
        if self._memory.is_hosts or self._makes_room(size):
            self._kept[weights] = _Kept(networks, tuple(_homes(networks)), size)

    def _makes_room(self, size: int) -> bool:
        """Whether so much can be kept beside the others, the longest unused of which go for it."""
        while not self._memory.can_keep(self._size(), size):
            gone = next((name for name, kept in self._kept.items() if self._counts(kept)), None)
            if gone is None:
                return False
            del self._kept[gone]
        return True

    def _size(self) -> int:
        return sum(kept.size for kept in self._kept.values() if self._counts(kept))

    def _counts(self, kept: _Kept) -> bool:
        """What is in use on a device takes the host's memory beside the device's, but for the host itself."""
        return not (kept.is_out and self._memory.is_hosts)


def read_through(parameters: Iterable[nn.Parameter]) -> None:
    """Reads a byte of each page: of files that are mapped, others then find them in memory."""
    for parameter in parameters:
        parameter.detach().reshape(-1).view(torch.uint8)[::PAGE].sum()


def page_lock(parameters: Iterable[nn.Parameter], memory: Memory) -> None:
    """Moves parameters into memory of the host that CUDA copies from fastest, as far as it can be had."""
    pieces: list[list[nn.Parameter]] = [[]]
    for parameter in parameters:
        if pieces[-1] and bytes_of((*pieces[-1], parameter)) > PIECE:
            pieces.append([])
        pieces[-1].append(parameter)
    for piece in pieces:
        Group(piece, memory)


def _parts(networks: Networks) -> tuple[nn.Module, ...]:
    return networks.unet, *networks.text_encoders, networks.vae


def _parameters(networks: Networks) -> tuple[nn.Parameter, ...]:
    return tuple(dict.fromkeys(each for part in _parts(networks) for each in part.parameters()))


def _homes(networks: Networks) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    """By names: to move a module can give it other parameters."""
    for part in _parts(networks):
        for name, parameter in part.named_parameters():
            yield part, name, parameter.data
