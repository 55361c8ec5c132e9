"""The tensors: batches of requests become calls of networks."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from farm.errors import CellFailed
from farm.render.approximations import approximated
from farm.render.capacity import is_out_of_memory
from farm.render.device import dtype_for
from farm.render.requests import Decode, EncodeText, Open, Predict, Request, Weights
from farm.weights.checkpoint import Networks
from farm.weights.tokenizer import Tokenizer

LOADED_AT_ONCE = 2
"""Checkpoints kept on the device: the one in use, and its neighbour where a sweep changes over."""

LoadNetworks = Callable[[str, torch.device, torch.dtype], Networks]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What a recipe must know of a checkpoint.

    Attributes:
        scheduler_config: as in `scheduler/scheduler_config.json`: how the UNet's numbers are read.
        text_layers: of the text encoder; the largest clip_skip.
        tokenizer: turns texts into what the text encoder takes.
        device: where its tensors lie.
    """

    scheduler_config: Mapping[str, Any]
    text_layers: int
    tokenizer: Tokenizer
    device: torch.device


class Runner:
    """Answers requests with a device's networks.

    Args:
        load: reads a checkpoint, by its name, onto a device in a type.
        device: what the networks run on.
        bucket: rows of every call of a network. Fewer are filled up with copies of the first, more go in
            several calls: an answer then does not depend, to the bit, on who else was in its batch.
            A call that does not fit into memory will not fit in halves either.
    """

    def __init__(self, load: LoadNetworks, device: torch.device, bucket: int | None = None) -> None:
        self._load = load
        self._device = device
        self._bucket = bucket
        self._loaded: OrderedDict[Weights, Networks] = OrderedDict()
        self._answers: dict[type, Callable[[Any], list[Any]]] = {
            Open: self._open,
            EncodeText: self._encode_text,
            Predict: self._predict,
            Decode: self._decode,
        }

    def run(self, requests: list[Request]) -> list[Any]:
        """Answers requests of one batch key, each by its own answer or exception."""
        answer = self._answers[type(requests[0])]
        if self._bucket is None or isinstance(requests[0], Open):
            return answer(requests)
        answers: list[Any] = []
        for start in range(0, len(requests), self._bucket):
            rows = requests[start : start + self._bucket]
            filling = [rows[0]] * (self._bucket - len(rows))
            answers += answer([*rows, *filling])[: len(rows)]
        return answers

    def done_with(self, weights: Weights) -> None:
        """Lets these go before any others when room is needed: nothing in flight asks for them."""
        if weights in self._loaded:
            self._loaded.move_to_end(weights, last=False)

    def _networks(self, weights: Weights) -> Networks:
        if weights not in self._loaded:
            while len(self._loaded) >= LOADED_AT_ONCE:
                self._loaded.popitem(last=False)
            self._loaded[weights] = self._load_making_room(weights)
        self._loaded.move_to_end(weights)
        return self._loaded[weights]

    def _dtype(self, weights: Weights) -> torch.dtype:
        """Of the networks; their own `dtype` walks through all their modules, at each call."""
        return dtype_for(weights.precision, self._device)

    def _load_making_room(self, weights: Weights) -> Networks:
        dtype = self._dtype(weights)
        try:
            return self._load(weights.model, self._device, dtype)
        except Exception as error:
            if not (self._loaded and is_out_of_memory(error)):
                raise
        self._loaded.clear()
        return self._load(weights.model, self._device, dtype)

    def _open(self, requests: list[Open]) -> list[Any]:
        """A checkpoint that cannot be opened fails all its askers at once: halving would load it again."""
        try:
            answer: Model | Exception = self._model(requests[0].weights)
        except Exception as error:
            answer = error
        return [answer] * len(requests)

    def _model(self, weights: Weights) -> Model:
        networks = self._networks(weights)
        return Model(
            scheduler_config=networks.scheduler_config,
            text_layers=networks.text_encoder.config.num_hidden_layers,
            # not the networks themselves: whoever holds a Model must not keep them on the device
            tokenizer=Tokenizer(networks.tokenizer, networks.text_encoder.config.max_position_embeddings),
            device=self._device,
        )

    def _encode_text(self, requests: list[EncodeText]) -> list[Any]:
        encoder = self._networks(requests[0].weights).text_encoder
        tokens = torch.tensor([request.tokens for request in requests], device=self._device)
        output = encoder(tokens, output_hidden_states=True)
        states = output.hidden_states[-requests[0].clip_skip]
        return list(encoder.final_layer_norm(states).unbind(0))

    def _predict(self, requests: list[Predict]) -> list[Any]:
        weights = requests[0].weights
        inputs = (
            torch.stack([row.input for row in requests]).to(self._dtype(weights)),
            torch.tensor([row.time for row in requests], dtype=torch.float32).to(self._device),
            torch.stack([row.conditioning for row in requests]),
        )
        unet = self._networks(weights).unet
        if requests[0].is_approximate:
            return approximated(unet, requests, *inputs)
        return list(unet(*inputs, return_dict=False)[0].float().unbind(0))

    def _decode(self, requests: list[Decode]) -> list[Any]:
        weights = requests[0].weights
        vae = self._networks(weights).vae
        latents = torch.stack([row.latents for row in requests]) / vae.config.scaling_factor
        pictures = vae.decode(latents.to(self._dtype(weights)), return_dict=False)[0].float()
        finite = pictures.isfinite().flatten(1).all(1)
        pixels = ((pictures / 2 + 0.5).clamp(0, 1).nan_to_num() * 255).round().to(torch.uint8)
        pixels, finite = pixels.permute(0, 2, 3, 1).cpu(), finite.cpu()
        return [row if ok else _not_finite() for row, ok in zip(pixels, finite.tolist(), strict=True)]


def _not_finite() -> CellFailed:
    return CellFailed("the picture holds NaN or infinite values; precision: fp32 may help")
