"""Where a checkpoint's networks lie: on the device, or, where it has too little room, in part on the host."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import torch

from farm.render.memory import Memory
from farm.render.offloading import Streamed, Visiting, bytes_of
from farm.weights.checkpoint import Networks
from farm.weights.device_errors import is_out_of_memory

WORTH_MOVING = 0.1
"""Of the device's memory: weights that take less are not what the room lacks for."""

GROUP = 1 / 32
"""Of the device's memory: what a group of weights takes at most, if that can be."""

GIB = 2**30


class Rung(IntEnum):
    """Of the ladder: each leaves more room than the one before, and costs more time."""

    WHOLE = 0
    VISITING = 1
    STREAMED = 2


class Placed:
    """A checkpoint's networks, each ready to be asked when it is taken from here.

    Args:
        networks: anywhere; the host is best where they are large.
        memory: of the device that they are to compute on.

    Attributes:
        rung: where the networks lie.
        notes: how it came to that, a line each; nothing is said of networks that lie on the device as ever.

    Raises:
        torch.OutOfMemoryError: there is not even room for parts of them.
    """

    def __init__(self, networks: Networks, memory: Memory) -> None:
        self._networks = networks
        self._memory = memory
        self._visitors: tuple[Visiting, ...] = ()
        self._streamed: Streamed | None = None
        self.notes: list[str] = []
        self.rung = rung_for(networks, memory)
        why = "" if memory.free is None else f"{_gib(memory.free)} are free"
        while not self._tried():
            memory.give_back()
            self.rung, why = Rung(self.rung + 1), "there was no room for more"
        self._note(why)

    @property
    def unet(self) -> Any:
        """On the device, or coming onto it as it is asked; the others leave if there is no room for all."""
        for visitor in self._visitors:
            visitor.go()
        return self._networks.unet

    @property
    def text_encoders(self) -> tuple[Any, ...]:
        """On the device, all together."""
        self._visit(0)
        return self._networks.text_encoders

    @property
    def vae(self) -> Any:
        """On the device."""
        self._visit(1)
        return self._networks.vae

    @property
    def networks(self) -> Networks:
        """Wherever they lie: for what is to be known of them."""
        return self._networks

    def lower(self) -> bool:
        """Makes room by moving weights to the host; False if there is nothing more to gain by it.

        Raises:
            torch.OutOfMemoryError: there is not even room for parts of them; this is of no use any more.
        """
        total = self._memory.total
        if total is None or self.rung == Rung.STREAMED or _size(self._networks) < WORTH_MOVING * total:
            return False
        self.rung = Rung(self.rung + 1)
        self._place()
        self._memory.give_back()
        self._note("there was no room for what is computed")
        return True

    def _tried(self) -> bool:
        """In a method of its own: an exception holds on to what it came through."""
        try:
            self._place()
        except Exception as error:
            if not is_out_of_memory(error) or self._memory.total is None or self.rung == Rung.STREAMED:
                raise
            return False
        return True

    def _place(self) -> None:
        networks, memory = self._networks, self._memory
        others = (_together(networks.text_encoders), networks.vae)
        if self.rung >= Rung.VISITING and not self._visitors:
            self._visitors = tuple(Visiting(network, memory) for network in others)
        if self.rung == Rung.STREAMED:
            self._streamed = Streamed(networks.unet, memory, int((memory.total or 0) * GROUP))
        else:
            for network in (networks.unet, *(() if self._visitors else others)):
                memory.bring(network)

    def _visit(self, number: int) -> None:
        for other, visitor in enumerate(self._visitors):
            if other != number:
                visitor.go()
        if self._visitors:
            self._visitors[number].come()

    def _note(self, why: str) -> None:
        where = f"{why} on {self._memory.device}"
        match self.rung, self._streamed:
            case Rung.VISITING, _:
                self.notes.append(f"text encoder and VAE wait on the host until they are asked: {where}")
            case Rung.STREAMED, Streamed(largest=largest):
                size = f"{_gib(bytes_of(self._networks.unet.parameters()))} of weights"
                groups = f"groups of at most {largest / 2**20:.0f} MiB"
                self.notes.append(f"the UNet's {size} wait on the host and come by {groups}: {where}")


def rung_for(networks: Networks, memory: Memory) -> Rung:
    """The first rung that leaves room enough, as far as is known before anything is computed."""
    free = memory.free
    if free is None:
        return Rung.WHOLE
    unet, *others = (bytes_of(network.parameters()) for network in _all(networks))
    room = free - memory.spared
    if unet + sum(others) <= room:
        return Rung.WHOLE
    return Rung.VISITING if unet + max(others) <= room else Rung.STREAMED


def _all(networks: Networks) -> tuple[torch.nn.Module, ...]:
    return networks.unet, _together(networks.text_encoders), networks.vae


def _together(encoders: Sequence[torch.nn.Module]) -> torch.nn.Module:
    """Text encoders as one module: a text is shown to all of them."""
    return torch.nn.ModuleList(encoders)


def _size(networks: Networks) -> int:
    return sum(bytes_of(network.parameters()) for network in _all(networks))


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
