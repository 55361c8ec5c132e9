"""A card that is played: its tensors have a device, a shape and a type, and no numbers (PyTorch's fakes).

All of the engine's own code runs as on an NVIDIA card, and what would mix devices raises. Streams, events and
memory are stand-ins, since there is no CUDA; whatever asks for a number of the card is written down.
"""

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from benchmarks.noise_ahead import OnTheLoop
from farm.render import draws, engine, transfers

DEVICE = torch.device("cuda:0")

GIB = 2**30

aten = torch.ops.aten

FROM_THE_HOST = (aten._to_copy.default, aten.copy_.default)
"""Operations in which both devices may stand."""


class Card(FakeTensorMode):
    """Tensors on the card are fakes; those of the host are real.

    Attributes:
        waits: where a real card would be waited for: numbers of it are asked for, or handed over.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.waits: list[str] = []

    def write(self, source: torch.Tensor, non_blocking: bool) -> None:
        """Numbers of the host are handed over: from page-locked memory that need not wait for the card.

        Weights may.
        """
        where = "".join(traceback.format_stack(limit=30))
        if not (non_blocking and source.is_pinned()) and "in bring" not in where:
            self.waits.append(where)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, leaves = kwargs or {}, tree_leaves((args, kwargs))
        has_fakes = any(isinstance(leaf, FakeTensor) for leaf in leaves)
        if not has_fakes and DEVICE.type not in {one.type for one in leaves if isinstance(one, torch.device)}:
            with _disable_current_modes():
                return func(*args, **kwargs)
        if func.namespace == "aten":
            with self:  # of an operation made of others, these
                if (answer := func.decompose(*args, **kwargs)) is not NotImplemented:
                    return answer
        to_host = func is aten._to_copy.default and torch.device(kwargs.get("device") or DEVICE).type == "cpu"
        if func is aten._local_scalar_dense.default or (has_fakes and to_host):
            self.waits.append("".join(traceback.format_stack(limit=30)))
            return on_the_host(args[0], kwargs.get("dtype")) if to_host else 0.5
        if func is aten._to_copy.default and not has_fakes:
            self.write(args[0], bool(kwargs.get("non_blocking")))
        if has_fakes and func not in FROM_THE_HOST:
            hosts = [
                one for one in leaves if isinstance(one, torch.Tensor) and not isinstance(one, FakeTensor)
            ]
            assert all(one.dim() == 0 for one in hosts), f"{func} mixes devices"
        return super().__torch_dispatch__(func, types, args, kwargs)


def on_the_host(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """What is taken for a tensor's numbers."""
    with _disable_current_modes():
        return torch.ones(tensor.shape, dtype=dtype or tensor.dtype)


class Event:
    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self._is_recorded = False
        self._tells_times = enable_timing

    def record(self, stream: Any = None) -> None:
        self._is_recorded = True

    def query(self) -> bool:
        assert self._is_recorded
        return True

    def synchronize(self) -> None:
        assert self._is_recorded

    def elapsed_time(self, later: "Event") -> float:
        assert self._tells_times and later._tells_times
        return 1.0


class Stream:
    def __init__(self, device: Any = None) -> None:
        self.device = device

    def wait_stream(self, other: "Stream") -> None:
        assert isinstance(other, Stream)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event


class Graph:
    def replay(self) -> None:
        pass


class Runtime:
    """What is asked of `torch.cuda`.

    Attributes:
        free: bytes of the card.
        total: bytes of it.
    """

    Event = Event
    Stream = Stream
    CUDAGraph = Graph

    def __init__(self, free: int = 10 * GIB, total: int = 16 * GIB) -> None:
        self.free, self.total = free, total
        self._streams = [Stream()]

    def current_stream(self, device: Any = None) -> Stream:
        return self._streams[-1]

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self._streams.append(stream)
        try:
            yield
        finally:
            self._streams.pop()

    @contextlib.contextmanager
    def graph(self, graph: Graph, pool: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        yield

    def set_stream(self, stream: Stream) -> None:
        pass

    def synchronize(self, device: Any = None) -> None:
        pass

    def set_device(self, device: torch.device) -> None:
        assert device.index is not None

    def current_device(self) -> int:
        return 0

    def graph_pool_handle(self) -> tuple[int, int]:
        return (0, 1)

    def get_device_name(self, index: int) -> str:
        return "a played card"

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return self.free, self.total

    def get_per_process_memory_fraction(self, index: int) -> float:
        return 1.0

    def memory_allocated(self, index: int) -> int:
        return GIB

    def memory_reserved(self, index: int) -> int:
        return GIB

    def max_memory_allocated(self, index: int) -> int:
        return GIB + 2**20

    def reset_peak_memory_stats(self, index: int) -> None:
        pass

    def memory_snapshot(self) -> list[Any]:
        return []

    def empty_cache(self) -> None:
        pass


@contextlib.contextmanager
def played(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> Iterator[Card]:
    """A block in which there is a card."""
    torch._C._ensureCUDADeviceGuardSet()  # type: ignore[attr-defined]
    for name in dir(runtime):
        if not name.startswith("_") and hasattr(torch.cuda, name):
            monkeypatch.setattr(torch.cuda, name, getattr(runtime, name))
    _play_methods(monkeypatch)
    monkeypatch.setattr(transfers, "_copied", lambda tensor, stream: on_the_host(tensor))
    monkeypatch.setattr(engine, "Draws", OnTheLoop)  # fakes are of one thread
    monkeypatch.setattr(draws, "Draws", OnTheLoop)
    with Card() as card:
        yield card


def _play_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tensors: those that are made in C++ look for a real card first."""
    of_tensor = torch.Tensor
    get, put, copy, contiguous = (
        getattr(of_tensor, name) for name in ("__getitem__", "__setitem__", "copy_", "contiguous")
    )
    tensor, empty = torch.tensor, torch.empty

    def is_fake(one: Any) -> bool:
        return isinstance(one, FakeTensor)

    def pinned(one: torch.Tensor) -> torch.Tensor:
        assert not is_fake(one), "only memory of the host can be page-locked"
        locked = one.clone()
        locked.is_locked = True  # type: ignore[attr-defined]
        return locked

    def made(make: Any) -> Any:
        def with_pages(*arguments: Any, pin_memory: bool = False, **others: Any) -> torch.Tensor:
            one: torch.Tensor = make(*arguments, **others)
            return pinned(one) if pin_memory else one

        return with_pages

    def copied(one: torch.Tensor, other: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        if not is_fake(one):
            return copy(one, other, non_blocking)
        if not is_fake(other) and (card := torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)):
            card.write(other, non_blocking)
        return aten.copy_(one, other, non_blocking)

    methods = {
        "__getitem__": lambda one, at: _taken(one, at) if is_fake(one) else get(one, at),
        "__setitem__": lambda one, at, value: _set(one, at, value) if is_fake(one) else put(one, at, value),
        "copy_": copied,
        "contiguous": lambda one, memory_format=torch.contiguous_format: (
            aten.clone(one, memory_format=memory_format) if is_fake(one) else contiguous(one)
        ),
        "pin_memory": pinned,
        "is_pinned": lambda one: getattr(one, "is_locked", False),
        "record_stream": lambda one, stream: None,
    }
    for name, method in methods.items():
        monkeypatch.setattr(of_tensor, name, method)
    monkeypatch.setattr(torch, "tensor", made(tensor))
    monkeypatch.setattr(torch, "empty", made(empty))
    monkeypatch.setattr(torch.nn.Module, "_apply", _applied)


def _taken(tensor: torch.Tensor, at: Any) -> Any:
    at = at if isinstance(at, tuple) else (at,)
    if any(isinstance(one, torch.Tensor) for one in at):
        return aten.index(tensor, [None if isinstance(one, slice) else one for one in at])
    if Ellipsis in at:
        place, given = at.index(Ellipsis), sum(one is not None and one is not Ellipsis for one in at)
        at = (*at[:place], *[slice(None)] * (tensor.dim() - given), *at[place + 1 :])
    dimension = 0
    for one in at:
        if one is None:
            tensor = tensor.unsqueeze(dimension)
        elif isinstance(one, slice):
            end = 2**62 if one.stop is None else one.stop
            tensor = aten.slice(tensor, dimension, one.start or 0, end, one.step or 1)
        else:
            tensor = aten.select(tensor, dimension, one)
            dimension -= 1
        dimension += 1
    return tensor


def _set(tensor: torch.Tensor, at: Any, value: Any) -> None:
    at = at if isinstance(at, tuple) else (at,)
    places = [None if isinstance(one, slice) else one for one in at]
    aten.index_put_(tensor, places, value)


def _applied(module: torch.nn.Module, change: Any, recurse: bool = True) -> torch.nn.Module:
    """As `Module._apply`: PyTorch's own does not let fakes take the place of real parameters."""
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                changed = torch.nn.Parameter(change(parameter.detach()), requires_grad=False)
                each._parameters[name] = changed
        for name, buffer in each._buffers.items():
            if buffer is not None:
                each._buffers[name] = change(buffer)
    return module
