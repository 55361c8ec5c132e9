"""The tensors: batches of requests become calls of networks."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch

from farm.errors import CellFailed, described
from farm.render.approximations import approximated
from farm.render.buckets import BUCKETS, Limit
from farm.render.checkpoints import Checkpoints, LoadNetworks
from farm.render.compiled import plainly
from farm.render.decoding import decoded
from farm.render.encoding import encoded
from farm.render.memory import Memory
from farm.render.placement import Rung
from farm.render.requests import Decode, EncodeImage, EncodeText, Open, Predict, Request, Weights
from farm.render.strips import can_strip
from farm.render.transfers import Transfers
from farm.weights.device_errors import is_out_of_memory


class Runner:
    """Answers requests with a device's networks.

    Args:
        load: reads a checkpoint, by its name, onto a device in a type; here onto the host.
        device: what the networks run on.
        buckets: the sizes that calls of networks have, rising. A batch between two of them is filled up with
            copies of its first row, so that an answer does not depend, to the bit, on who else is in a batch
            of its bucket; one beyond the largest goes in several calls.
        compiled_up_to: the largest batch of a batch key; if given, UNets are compiled for it.
        memory: of the device.
        made_room_for: is told when weights have left room to their rows, of which more may fit now.

    Attributes:
        notes: what people should know of how it goes, a line each; whoever tells it takes it away.
    """

    def __init__(
        self,
        load: LoadNetworks,
        device: torch.device,
        buckets: Sequence[int] = BUCKETS,
        compiled_up_to: Limit | None = None,
        memory: Memory | None = None,
        made_room_for: Callable[[Weights], None] = lambda _: None,
    ) -> None:
        self.notes: list[str] = []
        self._device = device
        self._buckets = tuple(buckets)
        self._compiled_up_to = compiled_up_to
        self._memory = memory or Memory(device)
        self._made_room_for = made_room_for
        self._transfers = Transfers(device)
        self._in_strips: set[Hashable] = set()
        compiles = compiled_up_to is not None
        self._checkpoints = Checkpoints(load, device, self._memory, compiles, self._noted)
        self._answers: dict[type, Callable[[Any], list[Any]]] = {
            Open: self._open,
            EncodeText: self._encode_text,
            EncodeImage: self._encode_image,
            Predict: self._predict,
            Decode: self._decode,
        }

    @property
    def loaded_at_once(self) -> int:
        """How many checkpoints stay loaded."""
        return self._checkpoints.most

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
            if not self._made_room(requests[0]):
                raise torch.OutOfMemoryError(lack)

    def _tried(self, requests: list[Request]) -> tuple[list[Any] | None, str]:
        """No answers, and what the device says, if a request that is alone does not fit.

        Room is made elsewhere: as long as an exception is there, what was computed until it came is, too.
        """
        try:
            return self._answered(requests), ""
        except Exception as error:
            if len(requests) > 1 or not is_out_of_memory(error):
                raise
            return None, str(error)

    def _answered(self, requests: list[Request]) -> list[Any]:
        answer = self._answers[type(requests[0])]
        if isinstance(requests[0], Open):
            return answer(requests)
        answers: list[Any] = []
        for start in range(0, len(requests), self._buckets[-1]):
            rows = requests[start : start + self._buckets[-1]]
            size = self._size(rows)
            answers += answer([*rows, *[rows[0]] * (size - len(rows))])[: len(rows)]
        self._transfers.pace()
        return answers

    def take_notes(self) -> tuple[str, ...]:
        """What people should know of how it went, since this was last asked."""
        notes, self.notes = tuple(self.notes), []
        return notes

    def done_with(self, weights: Weights) -> None:
        """Lets these go before any others when room is needed: nothing in flight asks for them."""
        self._checkpoints.done_with(weights)

    def _noted(self, note: str) -> None:
        self.notes.append(note)

    def _size(self, rows: Sequence[Request]) -> int:
        """Of the bucket; what is compiled is faster even if nearly half of it is filling."""
        least = next(bucket for bucket in self._buckets if bucket >= len(rows))
        if self._compiled_up_to is not None and isinstance(rows[0], Predict):
            full = self._full(rows[0])
            compiled = self._checkpoints.of(rows[0].weights).compiled
            if least < full < 2 * least and compiled and compiled.has(full, rows[0]):
                return full
        return least

    def _full(self, row: Predict) -> int:
        """Rows of the largest call."""
        limit = self._compiled_up_to(row.batch_key) if self._compiled_up_to else 0
        return min(limit, self._buckets[-1])

    def _made_room(self, request: Request) -> bool:
        """Makes more room for a request that did not fit alone, if there is a way left; changes no picture.

        First goes what nobody asks for now, then weights move to the host; a VAE works in strips before the
        UNet is moved for it.
        """
        weights, held = request.weights, self._checkpoints
        is_precise = isinstance(request, EncodeImage | Decode) and request.precise
        if held.let_others_go(weights) or held.let_extras_go(weights, all_but_vae=is_precise):
            return True
        if isinstance(request, Decode) and held.of(weights).networks.rung != Rung.WHOLE:
            return self._begun_in_strips(request) or self._lowered(weights)
        return self._lowered(weights) or (isinstance(request, Decode) and self._begun_in_strips(request))

    def _lowered(self, weights: Weights) -> bool:
        is_lower = self._checkpoints.lower(weights)
        if is_lower:
            self._made_room_for(weights)
        return is_lower

    def _begun_in_strips(self, request: Decode) -> bool:
        vae = self._checkpoints.of(request.weights).networks.vae
        if request.batch_key in self._in_strips or not can_strip(vae):
            return False
        self._in_strips.add(request.batch_key)
        size = f"pictures of {request.kind.width} × {request.kind.height} are decoded in strips"
        self._noted(f"{request.weights.model}: {size}, for want of room on {self._device}")
        return True

    def _open(self, requests: list[Open]) -> list[Any]:
        """A checkpoint that cannot be opened fails all its askers at once: halving would load it again."""
        try:
            answer: Any = self._checkpoints.of(requests[0].weights).model
        except Exception as error:
            answer = self._too_large(error) if is_out_of_memory(error) else error
        return [answer] * len(requests)

    def _too_large(self, error: Exception) -> CellFailed:
        """Of a checkpoint, which is not tried again: it would be read from the disk each time."""
        return CellFailed(f"it does not fit into the memory of {self._device}: {described(error)}")

    def _encode_text(self, requests: list[EncodeText]) -> list[Any]:
        encoder = self._checkpoints.of(requests[0].weights).networks.text_encoder
        tokens = self._transfers.put([request.tokens for request in requests], torch.int64)
        output = encoder(tokens, output_hidden_states=True)
        states = output.hidden_states[-requests[0].clip_skip]
        return list(encoder.final_layer_norm(states).unbind(0))

    def _predict(self, requests: list[Predict]) -> list[Any]:
        weights = requests[0].weights
        loaded = self._checkpoints.of(weights)
        inputs = torch.stack([row.input for row in requests]).to(self._checkpoints.dtype(weights))
        times = self._transfers.put([row.time for row in requests], torch.float32)
        states = torch.stack([row.conditioning for row in requests])
        unet = loaded.networks.unet
        if requests[0].is_approximate:
            return approximated(unet, requests, inputs, times, states)
        if loaded.compiled is None:
            output = plainly(unet)(inputs, times, states)
        else:
            output = loaded.compiled(inputs, times, states, full=len(requests) >= self._full(requests[0]))
        return list(output.float().unbind(0))

    def _encode_image(self, requests: list[EncodeImage]) -> list[Any]:
        pixels = self._transfers.stack([row.pixels for row in requests])
        return encoded(*self._vae_for(requests[0]), pixels, self._transfers)

    def _decode(self, requests: list[Decode]) -> list[Any]:
        latents = torch.stack([row.latents for row in requests])
        in_strips = requests[0].batch_key in self._in_strips
        return decoded(*self._vae_for(requests[0]), latents, self._transfers, in_strips)

    def _vae_for(self, request: EncodeImage | Decode) -> tuple[Any, torch.dtype]:
        """The VAE that it asks, and the type that this works in."""
        held, weights = self._checkpoints, request.weights
        if request.precise:
            return held.precise_vae_of(weights), torch.float32
        return held.of(weights).networks.vae, held.dtype(weights)
