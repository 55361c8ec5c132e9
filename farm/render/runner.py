"""The tensors: batches of requests become calls of networks."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from farm.errors import CellFailed, described
from farm.render.approximations import approximated
from farm.render.buckets import BUCKETS
from farm.render.capacity import is_out_of_memory
from farm.render.compiled import Compiled, plainly
from farm.render.decoding import decoded
from farm.render.device import dtype_for
from farm.render.memory import HOST, Memory
from farm.render.model import Model
from farm.render.placement import Placed, Rung, rung_for
from farm.render.requests import Decode, EncodeText, Open, Predict, Request, Weights
from farm.render.strips import can_strip
from farm.render.transfers import Transfers
from farm.render.tuning import tuned
from farm.weights.checkpoint import Networks
from farm.weights.tokenizer import Tokenizer

LOADED_AT_ONCE = 2
"""Checkpoints kept on the device: the one in use, and its neighbour where a sweep changes over."""

LoadNetworks = Callable[[str, torch.device, torch.dtype], Networks]

Limit = Callable[[Hashable], int]
"""The largest batch of a batch key."""


@dataclass(slots=True)
class _Loaded:
    """A checkpoint on the device, and what was made of it."""

    networks: Placed
    compiled: Compiled | None
    model: Model | None = None
    precise_vae: Any = None


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
        self._load = load
        self._device = device
        self._buckets = tuple(buckets)
        self._compiled_up_to = compiled_up_to
        self._memory = memory or Memory(device)
        self._made_room_for = made_room_for
        self._transfers = Transfers(device)
        self._in_strips: set[Hashable] = set()
        self._loaded: OrderedDict[Weights, _Loaded] = OrderedDict()
        self.notes: list[str] = []
        self._answers: dict[type, Callable[[Any], list[Any]]] = {
            Open: self._open,
            EncodeText: self._encode_text,
            Predict: self._predict,
            Decode: self._decode,
        }

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

    def _size(self, rows: Sequence[Request]) -> int:
        """Of the bucket; what is compiled is faster even if nearly half of it is filling."""
        least = next(bucket for bucket in self._buckets if bucket >= len(rows))
        if self._compiled_up_to is not None and isinstance(rows[0], Predict):
            full = self._compiled_up_to(rows[0].batch_key)
            compiled = self._load_once(rows[0].weights).compiled
            if least < full < 2 * least and compiled and compiled.has(full, rows[0]):
                return full
        return least

    def done_with(self, weights: Weights) -> None:
        """Lets these go before any others when room is needed: nothing in flight asks for them."""
        if weights in self._loaded:
            self._loaded.move_to_end(weights, last=False)

    def _made_room(self, request: Request) -> bool:
        """Moves weights to the host, which changes no picture; then lets a VAE work in strips."""
        loaded = self._loaded.get(request.weights)
        if loaded is None:
            return False
        loaded.compiled = loaded.precise_vae = None
        try:
            is_lower = loaded.networks.lower()
        except Exception:
            del self._loaded[request.weights]  # half of it may have been moved
            raise
        self._tell(request.weights, loaded.networks)
        if is_lower:
            self._made_room_for(request.weights)
        return is_lower or (isinstance(request, Decode) and self._begun_in_strips(request, loaded))

    def _begun_in_strips(self, request: Decode, loaded: "_Loaded") -> bool:
        if request.batch_key in self._in_strips or not can_strip(loaded.networks.vae):
            return False
        self._in_strips.add(request.batch_key)
        size = f"pictures of {request.kind.width} × {request.kind.height} are decoded in strips"
        self.notes.append(f"{request.weights.model}: {size}, for want of room on {self._device}")
        return True

    def _tell(self, weights: Weights, placed: Placed) -> None:
        self.notes += [f"{weights.model}: {note}" for note in placed.notes]
        placed.notes.clear()

    def _networks(self, weights: Weights) -> Placed:
        return self._load_once(weights).networks

    def _load_once(self, weights: Weights) -> "_Loaded":
        if weights not in self._loaded:
            while len(self._loaded) >= LOADED_AT_ONCE:
                self._loaded.popitem(last=False)
            placed = self._load_making_room(weights)
            self._tell(weights, placed)
            compiles = self._compiled_up_to is not None and placed.rung == Rung.WHOLE
            compiled = Compiled(placed.unet, self._device, self.notes.append) if compiles else None
            self._loaded[weights] = _Loaded(placed, compiled)
        self._loaded.move_to_end(weights)
        return self._loaded[weights]

    def _dtype(self, weights: Weights) -> torch.dtype:
        """Of the networks; their own `dtype` walks through all their modules, at each call."""
        return dtype_for(weights.precision, self._device)

    def _load_making_room(self, weights: Weights) -> Placed:
        networks = self._read(weights)
        if networks is None:
            self._let_all_go()
            networks = self._load(weights.model, HOST, self._dtype(weights))
        if self._loaded and rung_for(networks, self._memory) != Rung.WHOLE:
            self._let_all_go()
        return Placed(tuned(networks, self._device), self._memory)

    def _read(self, weights: Weights) -> Networks | None:
        """None if there was no memory for it beside the others."""
        try:
            return self._load(weights.model, HOST, self._dtype(weights))
        except Exception as error:
            if not (self._loaded and is_out_of_memory(error)):
                raise
            return None

    def _let_all_go(self) -> None:
        self._loaded.clear()
        self._memory.give_back()

    def _open(self, requests: list[Open]) -> list[Any]:
        """A checkpoint that cannot be opened fails all its askers at once: halving would load it again."""
        try:
            answer: Model | Exception = self._model(requests[0].weights)
        except Exception as error:
            answer = self._too_large(error) if is_out_of_memory(error) else error
        return [answer] * len(requests)

    def _too_large(self, error: Exception) -> CellFailed:
        """Of a checkpoint, which is not tried again: it would be read from the disk each time."""
        return CellFailed(f"it does not fit into the memory of {self._device}: {described(error)}")

    def _model(self, weights: Weights) -> Model:
        loaded = self._load_once(weights)
        loaded.model = loaded.model or self._described(loaded.networks, weights)
        return loaded.model

    def _described(self, networks: Placed, weights: Weights) -> Model:
        return Model(
            scheduler_config=networks.scheduler_config,
            text_layers=networks.text_encoder.config.num_hidden_layers,
            # not the networks themselves: whoever holds a Model must not keep them on the device
            tokenizer=Tokenizer(networks.tokenizer, networks.text_encoder.config.max_position_embeddings),
            device=self._device,
            is_precise=self._dtype(weights) == torch.float32,
        )

    def _encode_text(self, requests: list[EncodeText]) -> list[Any]:
        encoder = self._networks(requests[0].weights).text_encoder
        tokens = self._transfers.put([request.tokens for request in requests], torch.int64)
        output = encoder(tokens, output_hidden_states=True)
        states = output.hidden_states[-requests[0].clip_skip]
        return list(encoder.final_layer_norm(states).unbind(0))

    def _predict(self, requests: list[Predict]) -> list[Any]:
        weights = requests[0].weights
        loaded = self._load_once(weights)
        inputs = torch.stack([row.input for row in requests]).to(self._dtype(weights))
        times = self._transfers.put([row.time for row in requests], torch.float32)
        states = torch.stack([row.conditioning for row in requests])
        unet = loaded.networks.unet
        if requests[0].is_approximate:
            return approximated(unet, requests, inputs, times, states)
        if loaded.compiled is None or self._compiled_up_to is None:
            output = plainly(unet)(inputs, times, states)
        else:
            full = len(requests) >= self._compiled_up_to(requests[0].batch_key)
            output = loaded.compiled(inputs, times, states, full)
        return list(output.float().unbind(0))

    def _decode(self, requests: list[Decode]) -> list[Any]:
        weights, precise = requests[0].weights, requests[0].precise
        vae = self._precise_vae(weights) if precise else self._networks(weights).vae
        dtype = torch.float32 if precise else self._dtype(weights)
        latents = torch.stack([row.latents for row in requests])
        in_strips = requests[0].batch_key in self._in_strips
        return decoded(vae, latents, dtype, self._transfers, in_strips)

    def _precise_vae(self, weights: Weights) -> Any:
        loaded = self._load_once(weights)
        if loaded.precise_vae is None:
            loaded.precise_vae = copy.deepcopy(loaded.networks.vae).float()
        return loaded.precise_vae
