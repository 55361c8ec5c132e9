"""The tensors: batches of requests become calls of networks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from farm.errors import CellFailed, described
from farm.render.approximations import approximated
from farm.render.buckets import BUCKETS
from farm.render.capacity import Capacity
from farm.render.checkpoints import Checkpoints, LoadNetworks
from farm.render.clock import Clock
from farm.render.compiled import plainly
from farm.render.decoding import decoded
from farm.render.embedded import ids_of, vectors_shown
from farm.render.encoding import encoded
from farm.render.files import NO_FILES, Files
from farm.render.memory import Memory
from farm.render.patching import Patching
from farm.render.requests import (
    Decode,
    EncodeImage,
    EncodeText,
    Fetch,
    OfNetworks,
    Open,
    Predict,
    Request,
    Weights,
)
from farm.render.room import Room
from farm.render.text_encoding import encoded_texts
from farm.render.told import stacked
from farm.render.transfers import Transfers
from farm.weights.device_errors import is_out_of_memory
from farm.work import Kind


class Runner:
    """Answers requests with a device's networks.

    Args:
        load: reads a checkpoint, by its name, onto a device in a type; here onto the host.
        device: what the networks run on.
        buckets: the sizes that calls of networks have, rising. A batch between two of them is filled up with
            copies of its first row, so that an answer does not depend, to the bit, on who else is in a batch
            of its bucket; one beyond the largest goes in several calls.
        capacity: of the batches; it learns what calls take of the memory. None lets all sizes be.
        compiles: whether UNets are compiled for full batches.
        memory: of the device.
        clock: that times the calls, and is told what is compiled in them.
        files: where VAEs, LoRA and hypernetworks come from.
        reads_ahead: whether a checkpoint, by its name, can be read while something is computed.

    Attributes:
        filled_up: rows that were computed to fill calls up, and answered nobody.
        notes: what people should know of how it goes, a line each; whoever tells it takes it away.
    """

    def __init__(
        self,
        load: LoadNetworks,
        device: torch.device,
        buckets: Sequence[int] = BUCKETS,
        capacity: Capacity | None = None,
        compiles: bool = False,
        memory: Memory | None = None,
        clock: Clock | None = None,
        files: Files = NO_FILES,
        reads_ahead: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.filled_up = 0
        self.notes: list[str] = []
        self._device = device
        self._buckets = tuple(buckets)
        self._capacity = capacity
        self._compiles = compiles
        self._memory = memory or Memory(device)
        self._clock = clock or Clock()
        self._transfers = Transfers(device)
        self._patching = Patching(files, self._transfers, self._loading, self._noted)
        self._calling: Request | None = None
        self._is_compiling = False
        self._checkpoints = Checkpoints(
            load, device, self._memory, compiles, self._noted, self._loading, self._making_faster,
            files.vae, reads_ahead,
        )  # fmt: skip
        self._room = Room(self._checkpoints, self._patching, capacity, device, self._noted)
        self._answers: dict[type, Callable[[Any, Any], list[Any]]] = {
            EncodeText: self._encode_text,
            EncodeImage: self._encode_image,
            Predict: self._predict,
            Decode: self._decode,
        }

    @property
    def loaded_at_once(self) -> int:
        """How many checkpoints stay loaded."""
        return self._checkpoints.most

    def read_ahead(self, weights: Weights) -> bool:
        """Begins to read a checkpoint beside what is computed; False until there is nothing to wait for."""
        return self._checkpoints.read_ahead(weights)

    def close(self) -> None:
        """Ends its threads."""
        self._checkpoints.close()

    def run(self, requests: list[Request]) -> list[Any]:
        """Answers requests of one batch key, each by its own answer or exception.

        Raises:
            torch.OutOfMemoryError: they do not fit together; one alone not even after room was made for it.
        """
        while True:
            answers, lack = self._tried(requests)
            if answers is not None:
                return answers
            self._memory.give_back()
            if not self._room.made_for(requests):
                raise torch.OutOfMemoryError(lack)

    def _tried(self, requests: list[Request]) -> tuple[list[Any] | None, str]:
        """No answers, and what the device says, if they do not fit.

        Room is made elsewhere: as long as an exception is there, what was computed until it came is, too.
        """
        try:
            return self._answered(requests), ""
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None, str(error)

    def _answered(self, requests: list[Request]) -> list[Any]:
        if isinstance(requests[0], Open):
            return [self._opened(requests[0])] * len(requests)
        if isinstance(requests[0], Fetch):
            return self._fetched(requests)
        answers: list[Any] = []
        for start in range(0, len(requests), self._buckets[-1]):
            answers += self._called(requests[start : start + self._buckets[-1]])
        self._transfers.pace()
        return answers

    def _called(self, rows: Sequence[Any]) -> list[Any]:
        """The answers of one call, whose own share of the memory is measured unless it compiles, too."""
        size, network = self._size(rows), self._network(rows[0])
        self._calling, self._is_compiling = rows[0], False
        with self._memory.watched() as taken:
            answers = self._answers[type(rows[0])](network, [*rows, *[rows[0]] * (size - len(rows))])
        if isinstance(rows[0], Predict):
            self.filled_up += size - len(rows)
        most = taken()
        if most is not None and self._capacity is not None and not self._is_compiling:
            self._capacity.note(rows[0].batch_key, size, most)
        return answers[: len(rows)]

    def _network(self, request: OfNetworks) -> Any:
        """That a request asks: on the device, or on its way there, and the others gone if room is short."""
        networks = self._checkpoints.of(request.weights).networks
        match request:
            case EncodeText():
                return networks.text_encoders
            case Decode() | EncodeImage():
                return self._checkpoints.vae_of(request.weights, request.vae, request.precise)
        return networks.unet

    def take_notes(self) -> tuple[str, ...]:
        """What people should know of how it went, since this was last asked."""
        notes, self.notes = tuple(self.notes), []
        return notes

    def done_with(self, weights: Weights) -> None:
        """Lets these go before any others when room is needed: nothing in flight asks for them."""
        self._checkpoints.done_with(weights)

    def _noted(self, note: str) -> None:
        self.notes.append(note)

    @contextmanager
    def _loading(self, kind: Kind) -> Iterator[None]:
        with self._clock.apart(kind):
            yield
        if self._capacity is not None:
            self._capacity.room_changed()

    @contextmanager
    def _making_faster(self) -> Iterator[None]:
        """Inside of a call, whose measure then is of something else."""
        row, self._is_compiling = self._calling, True
        assert row is not None
        with self._clock.apart(replace(row.kind, request="compile")):
            yield
        self._memory.count_graphs()
        if self._capacity is not None:
            self._capacity.keep(row.batch_key)

    def _size(self, rows: Sequence[Request]) -> int:
        """Of the bucket; what is compiled is faster even if nearly half of it is filling."""
        least = next(bucket for bucket in self._buckets if bucket >= len(rows))
        if self._compiles and isinstance(rows[0], Predict) and rows[0].is_plain:
            full = self._full(rows[0])
            compiled = self._checkpoints.of(rows[0].weights).compiled
            if least < full < 2 * least and compiled and compiled.has(full, rows[0]):
                return full
        return least

    def _full(self, row: Predict) -> int:
        """Rows of the largest call."""
        limit = self._capacity.limit(row.batch_key) if self._capacity else self._buckets[-1]
        return min(limit, self._buckets[-1])

    def _opened(self, request: Open) -> Any:
        """A checkpoint that cannot be opened fails all its askers at once: halving would load it again."""
        try:
            return self._checkpoints.of(request.weights).model
        except Exception as error:
            return self._too_large(error) if is_out_of_memory(error) else error

    def _too_large(self, error: Exception) -> CellFailed:
        """Of a checkpoint, which is not tried again: it would be read from the disk each time."""
        return CellFailed(f"it does not fit into the memory of {self._device}: {described(error)}")

    def _encode_text(self, encoders: Sequence[Any], requests: list[EncodeText]) -> list[Any]:
        tokens = ([one.tokens for one in requests], [one.tokens_2 for one in requests])
        ids = [self._transfers.put(list(map(ids_of, rows)), torch.int64) for _, rows in zip(encoders, tokens)]
        networks = self._checkpoints.of(requests[0].weights).networks
        with (
            self._patching.on_text(networks, encoders, requests),
            vectors_shown(encoders, requests, self._transfers),
        ):
            return [*encoded_texts(encoders, ids, requests[0].clip_skip)]

    def _fetched(self, requests: Sequence[Any]) -> list[Any]:
        """Numbers on their way to the host."""
        exact = torch.float64 if self._device.type in ("cpu", "cuda") else torch.float32
        values = torch.stack([request.value.reshape(()).to(exact) for request in requests])
        numbers: list[Any] = self._transfers.fetch((values,), lambda fetched: fetched[0].tolist())
        return numbers

    def _predict(self, unet: Any, requests: list[Predict]) -> list[Any]:
        weights = requests[0].weights
        inputs = torch.stack([row.input for row in requests]).to(self._checkpoints.dtype(weights))
        times = self._transfers.put([row.time for row in requests], torch.float32)
        states, added = stacked([row.conditioning for row in requests])
        loaded = self._checkpoints.of(weights)
        with self._patching.on_unet(loaded.networks, unet, requests):
            if requests[0].is_approximate:
                return approximated(unet, requests, inputs, times, states, added)
            if loaded.compiled is None or not requests[0].is_plain:
                output = plainly(unet)(inputs, times, states, *added)
            else:
                full = len(requests) >= self._full(requests[0])
                output = loaded.compiled(inputs, times, states, *added, full=full)
            return list(output.float().unbind(0))

    def _encode_image(self, vae: Any, requests: list[EncodeImage]) -> list[Any]:
        pixels = self._transfers.stack([row.pixels for row in requests])
        return encoded(vae, self._vae_type(requests[0]), pixels, self._transfers)

    def _decode(self, vae: Any, requests: list[Decode]) -> list[Any]:
        latents = torch.stack([row.latents for row in requests])
        in_strips = requests[0].batch_key in self._room.in_strips
        return decoded(vae, self._vae_type(requests[0]), latents, self._transfers, in_strips)

    def _vae_type(self, request: EncodeImage | Decode) -> torch.dtype:
        """That the VAE works in."""
        return torch.float32 if request.precise else self._checkpoints.dtype(request.weights)
