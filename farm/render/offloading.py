"""Weights that lie on the host and come onto the device when they are needed.

diffusers has hooks for this (`diffusers.hooks.apply_group_offloading`); they need accelerate, and let the
host wait for the device at each group. Here the device waits for the copies, and the host for nothing.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from farm.render.memory import Memory

ALIGNMENT = 256
"""Bytes, of each tensor in a group."""

Places = tuple[torch.Tensor, ...]
"""A view of some memory for each parameter of a group."""


class Group:
    """Parameters that move together, in one copy.

    Making one moves them to the host.

    Args:
        parameters: each of which can be in one group only.
        memory: of the device.

    Attributes:
        size: in bytes.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], memory: Memory) -> None:
        self._parameters = tuple(dict.fromkeys(parameters))
        self._offsets = []
        self.size = 0
        for parameter in self._parameters:
            self._offsets.append(self.size)
            self.size += -(-bytes_of((parameter,)) // ALIGNMENT) * ALIGNMENT
        self._home = memory.host_room(self.size)
        self._is_pinned = self._home.is_pinned()
        self._places_at_home = self.places(self._home)
        for parameter, place in zip(self._parameters, self._places_at_home, strict=True):
            place.copy_(parameter.data)
        self.go_home()

    def copy_to(self, buffer: torch.Tensor) -> None:
        """Copies the bytes; page-locked ones without waiting. The parameters stay where they are."""
        buffer[: self.size].copy_(self._home, non_blocking=self._is_pinned)

    def move_to(self, places: Places) -> None:
        """Lets the parameters be what was copied."""
        for parameter, place in zip(self._parameters, places, strict=True):
            parameter.data = place

    def go_home(self) -> None:
        """Lets the parameters lie on the host."""
        self.move_to(self._places_at_home)

    def places(self, buffer: torch.Tensor) -> Places:
        """Where in a buffer the parameters lie, each in its own layout."""
        return tuple(
            buffer[offset : offset + bytes_of((parameter,))]
            .view(parameter.dtype)
            .as_strided(parameter.shape, parameter.stride())
            for parameter, offset in zip(self._parameters, self._offsets, strict=True)
        )


class Visiting:
    """A network that is on the device only while it is asked.

    Args:
        network: in evaluation mode.
        memory: of the device.
    """

    def __init__(self, network: nn.Module, memory: Memory) -> None:
        self._group = Group(network.parameters(), memory)
        self._memory = memory
        self._is_here = False
        bring_buffers(network, memory)

    def come(self) -> None:
        """Brings it, if it is not there.

        Raises:
            torch.OutOfMemoryError: there is no room for it.
        """
        if not self._is_here:
            self._group.copy_to(room := self._memory.room(self._group.size))
            self._group.move_to(self._group.places(room))
            self._is_here = True

    def go(self) -> None:
        """Makes room, if it is there. Nothing is copied: weights do not change."""
        if self._is_here:
            self._group.go_home()
            self._is_here = False


class Streamed:
    """A network whose weights come onto the device group by group as they are needed.

    There is room for two groups: while one computes, the next is copied, in a CUDA stream of its own. Which
    one is next is as it was the last time.

    Args:
        network: in evaluation mode.
        memory: of the device.
        most: bytes of a group, if the network can be divided so.

    Attributes:
        largest: bytes of the largest group.

    Raises:
        torch.OutOfMemoryError: there is no room for two groups.
    """

    def __init__(self, network: nn.Module, memory: Memory, most: int) -> None:
        modules = tuple(blocks(network, most))
        groups = [Group(module.parameters(), memory) for module in modules]
        own = set(network.parameters()).difference(*(module.parameters() for module in modules))
        for parameter in own:
            parameter.data = parameter.data.to(memory.device)
        bring_buffers(network, memory)
        self.largest = max((group.size for group in groups), default=0)
        self._rooms = [memory.room(self.largest) for _ in range(2)]
        self._copies = _Copies(self._rooms) if memory.device.type == "cuda" else None
        self._lies_in: dict[Group, int] = {}
        self._places: dict[tuple[Group, int], Places] = {}  # by room; to make them takes longer than to move
        self._next: dict[Group, Group] = {}
        self._last: Group | None = None
        self._hooks = [
            module.register_forward_pre_hook(partial(self._enter, group))
            for module, group in zip(modules, groups, strict=True)
        ]

    def end(self) -> None:
        """Leaves the network on the host, as it was before but for the buffers."""
        for hook in self._hooks:
            hook.remove()
        for group in self._lies_in:
            group.go_home()
        self._lies_in.clear()
        self._places.clear()
        self._rooms.clear()

    def _enter(self, group: Group, module: nn.Module, arguments: Any) -> None:
        """Before a group's module computes."""
        last, self._last = self._last, group
        if last is not None:
            self._next[last] = group
        if group not in self._lies_in:
            self._fetch(group, 1 - self._lies_in.get(last, 1) if last else 0)
        if self._copies:
            self._copies.await_them()
        following = self._next.get(group)
        if following is not None and following not in self._lies_in:
            self._fetch(following, 1 - self._lies_in[group])

    def _fetch(self, group: Group, number: int) -> None:
        room = self._rooms[number]
        for other in [other for other, place in self._lies_in.items() if place == number]:
            del self._lies_in[other]
            other.go_home()
        if self._copies:
            self._copies.copy(group, room)
        else:
            group.copy_to(room)
        if (group, number) not in self._places:
            self._places[group, number] = group.places(room)
        group.move_to(self._places[group, number])
        self._lies_in[group] = number


class _Copies:
    """A stream of copies beside that of the computations, neither of which the host waits for.

    Args:
        rooms: that are copied to.
    """

    def __init__(self, rooms: Iterable[torch.Tensor]) -> None:
        first, *_ = rooms = tuple(rooms)
        self._device = first.device
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        for room in rooms:
            room.record_stream(self._stream)

    def copy(self, group: Group, room: torch.Tensor) -> None:
        """Begins when what was computed in the room is through."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            group.copy_to(room)

    def await_them(self) -> None:
        """Lets what is computed from now on come after the copies so far."""
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


def blocks(network: nn.Module, most: int) -> Iterator[nn.Module]:
    """The modules that a network calls, divided until none has more bytes than `most` if that can be.

    A UNet's block is always divided into its layers, since shallow passes call some of these by themselves.
    """
    for child in network.children():
        is_called = not (isinstance(child, nn.ModuleList | nn.ModuleDict) or hasattr(child, "resnets"))
        size = bytes_of(child.parameters())
        if size and is_called and (size <= most or not any(True for _ in child.children())):
            yield child
        elif size:
            yield from blocks(child, most)


def bytes_of(parameters: Iterable[nn.Parameter]) -> int:
    """That they take."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def bring_buffers(network: nn.Module, memory: Memory) -> None:
    """Moves what is no parameter onto the device; it is small."""
    for buffer in network.buffers():
        buffer.data = buffer.data.to(memory.device)
