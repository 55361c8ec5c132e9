"""The UNet's calls made faster where a shape comes again and again: compiled, and on a card captured."""

import os
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from farm.cache_file import cache_path
from farm.errors import described
from farm.render.requests import Predict
from farm.render.told import in_diffusers
from farm.weights.device_errors import is_out_of_memory

UNet = Callable[..., torch.Tensor]
"""Predicts from inputs `(rows, channels, height/8, width/8)`, times `(rows,)`, states of texts
`(rows, tokens, channels)`; and from pooled texts `(rows, channels)` and sizes `(rows, 6)` if it takes these.
"""

CACHE_DIR = "TORCHINDUCTOR_CACHE_DIR"
"""The variable that says where PyTorch keeps what it compiles; else in a folder that a restart empties."""

SEEN = 3
"""Calls of a shape that are made as usual, before it is worth more."""

CAPTURED = "captured"

SHAPES = 256
"""That one network may be compiled for; PyTorch's own limit is 8, past which it gives up without a word."""


def plainly(network: Any) -> UNet:
    """The calls of a UNet of diffusers as they are."""

    def predict(
        inputs: torch.Tensor, times: torch.Tensor, states: torch.Tensor, *added: torch.Tensor
    ) -> torch.Tensor:
        output: torch.Tensor = network(
            inputs, times, encoder_hidden_states=states, added_cond_kwargs=in_diffusers(added),
            return_dict=False,
        )[0]  # fmt: skip
        return output

    return predict


class Compiled:
    """A UNet that gets faster.

    Full batches, which are most of a run, are compiled by PyTorch's inductor, once for each shape; what it
    makes is kept in the user's cache folder. On a card every shape that comes often is captured as a CUDA
    graph too. If either fails, the calls go on as they were.

    Args:
        network: of diffusers.
        device: where it lies.
        note: is told, in a line for people, what could not be done.
        making: is entered while a call is made faster.
    """

    def __init__(
        self,
        network: Any,
        device: torch.device,
        note: Callable[[str], None],
        making: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        _prepare()
        self._plain = plainly(network)
        self._compiled: UNet = torch.compile(self._plain, dynamic=False)
        self._captures = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self._captures else None
        self._note = note
        self._making = making
        self._calls: Counter[Hashable] = Counter()
        self._faster: dict[Hashable, UNet] = {}
        self._is_compiled: set[Hashable] = set()

    def __call__(
        self,
        inputs: torch.Tensor,
        times: torch.Tensor,
        states: torch.Tensor,
        *added: torch.Tensor,
        full: bool,
    ) -> torch.Tensor:
        """As `UNet`.

        Args:
            inputs: as there.
            times: as there.
            states: as there.
            added: what else there is, as there.
            full: whether this is as large as the batches of its kind get.
        """
        shape = (inputs.shape, states.shape, full)
        self._calls[shape] += 1
        if shape not in self._faster:
            if self._calls[shape] <= SEEN:
                return self._plain(inputs, times, states, *added)
            if not (full or self._captures):
                return self._plain(inputs, times, states, *added)
            with self._making():
                self._faster[shape] = self._made_faster((inputs, times, states, *added), full)
        return self._faster[shape](inputs, times, states, *added)

    def has(self, rows: int, row: Predict) -> bool:
        """Whether full batches of so many rows like this one are compiled."""
        return ((rows, *row.input.shape), (rows, *row.conditioning.states.shape), True) in self._is_compiled

    def _made_faster(self, given: tuple[torch.Tensor, ...], full: bool) -> UNet:
        call = self._plain
        if full:
            call = self._tried(call, lambda: _called(self._compiled, *given), "compiled")
            if call is not self._plain:
                inputs, _, states, *_ = given
                self._is_compiled.add((inputs.shape, states.shape, full))
        if self._captures:
            call = self._tried(call, lambda: Graph(call, given, self._pool), CAPTURED)
        return call

    def _capture_no_more(self) -> None:
        """After one that was broken off PyTorch replays none of a network's graphs any more."""
        self._captures = False
        self._faster = {shape: call for shape, call in self._faster.items() if not isinstance(call, Graph)}

    def _tried(self, now: UNet, make: Callable[[], UNet], what: str) -> UNet:
        try:
            return make()
        except Exception as error:  # whatever a compiler may raise: there is a way without it
            if self._captures:
                torch.cuda.synchronize()  # raises if it is the card that is lost
            if what == CAPTURED and not is_out_of_memory(error):
                self._capture_no_more()
            self._note(f"the UNet could not be {what}, and runs without: {described(error)}")
            return now


def _called(call: UNet, *inputs: torch.Tensor) -> UNet:
    """It, once it has been called: that is when PyTorch compiles."""
    call(*inputs)
    return call


class Graph:
    """A call captured as a CUDA graph: the card is told all its kernels at once.

    Args:
        call: what to capture.
        inputs: of the shapes that it will get.
        pool: of the memory that all graphs of a network work in, one after the other.
    """

    def __init__(self, call: UNet, inputs: tuple[torch.Tensor, ...], pool: Any) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(2):  # libraries set themselves up at the first call
                call(*self._inputs)
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._output = call(*self._inputs)
        except BaseException:
            torch.cuda.set_stream(stream)  # a capture that fails leaves its own behind
            _end_recording(self._graph, pool)
            raise

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """As `UNet`."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._output.clone()


_BROKEN_OFF: list[torch.cuda.CUDAGraph] = []
"""Graphs that PyTorch's allocator of the host goes on asking."""


def _end_recording(graph: torch.cuda.CUDAGraph, pool: Any) -> None:
    """Of a capture that was broken off: PyTorch's allocator and random numbers go on as if it did, too."""
    device = torch.cuda.current_device()
    try:
        torch._C._cuda_endAllocateToPool(device, pool)
    except RuntimeError:
        return  # it came to its end: there was too little memory in it, perhaps
    torch._C._cuda_releasePool(device, pool)
    _BROKEN_OFF.append(graph)
    with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
        torch.zeros(1, device="cuda")  # the end of any capture is the random numbers', too


def _prepare() -> None:
    if os.environ.get(CACHE_DIR, default_cache_dir()) == default_cache_dir():  # it sets the variable itself
        os.environ[CACHE_DIR] = str(cache_path("compiled"))
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
