"""LoRA and hypernetworks beside the networks of a checkpoint, for the rows of a call."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from farm.errors import CellFailed, FarmError
from farm.prompts.patches import Scales
from farm.render.adapters import Addition, adapted
from farm.render.files import Files
from farm.render.hypernetworks import Applied, chained, hypernetworks_applied
from farm.render.placement import Placed
from farm.render.requests import EncodeText, Predict, Weights
from farm.render.transfers import Transfers
from farm.weights.checkpoint import Networks
from farm.weights.hypernetwork import Hypernetwork
from farm.weights.layers import Layer, layers_of
from farm.weights.lora import Lora, read_lora
from farm.work import Kind

HELD = 2 << 30
"""Bytes of patches that are held at most, beside those that a call needs."""


class Patching:
    """Holds patches as networks need them, those that were asked for last the longest.

    Args:
        files: where they come from.
        transfers: to the device.
        loading: is entered while one is read.
        note: is told, in a line for people, what of one is not used.
    """

    def __init__(
        self,
        files: Files,
        transfers: Transfers,
        loading: Callable[[Kind], AbstractContextManager[None]],
        note: Callable[[str], None],
    ) -> None:
        self._files = files
        self._transfers = transfers
        self._loading = loading
        self._note = note
        self._failed: dict[tuple[object, ...], str] = {}
        self._held: OrderedDict[tuple[object, ...], Lora | Hypernetwork | None] = OrderedDict()
        self._layers: WeakKeyDictionary[nn.Module, _Layers] = WeakKeyDictionary()

    @contextmanager
    def on_unet(self, networks: Placed, unet: Any, rows: Sequence[Predict]) -> Iterator[None]:
        """Lets what the rows of a call ask for act in the UNet for a while."""
        if not any(any(row.patches) for row in rows):  # nothing at all is otherwise than without patches
            yield
            return
        loras = self._additions(networks, rows[0].weights, [row.patches.loras for row in rows], "unet")
        chain = chained([row.patches.hypernetworks for row in rows])
        hypernetworks = [
            Applied(found, self._transfers.put(strengths, torch.float32))
            for name, strengths in chain
            if (found := self._hypernetwork(name, unet.dtype)) is not None
        ]
        with ExitStack() as stack:
            if loras:
                stack.enter_context(adapted(self._layers_of(unet).by_path, loras))
            stack.enter_context(hypernetworks_applied(unet, hypernetworks))
            yield

    @contextmanager
    def on_text(
        self, networks: Placed, encoders: Sequence[Any], rows: Sequence[EncodeText]
    ) -> Iterator[None]:
        """Lets what the rows of a call ask for act in the text encoders for a while."""
        with ExitStack() as stack:
            for name, encoder in zip(("text_encoder", "text_encoder_2"), encoders):
                loras = self._additions(networks, rows[0].weights, [row.loras for row in rows], name)
                if loras:
                    stack.enter_context(adapted(self._layers_of(encoder).by_path, loras))
            yield

    def let_go(self, request: object) -> bool:
        """Makes room for a request that no patch is for, by letting all go; False if there is none."""
        if not self._held or (isinstance(request, Predict | EncodeText) and request.is_patched):
            return False
        self._held.clear()
        return True

    def _additions(
        self, networks: Placed, weights: Weights, rows: Sequence[Scales], network: str
    ) -> list[Addition]:
        """What LoRA add to a network's layers, with their scales in the rows."""
        found: list[Addition] = []
        for name in dict.fromkeys(name for row in rows for name, _ in row):
            lora = self._lora(networks, weights, name)
            if lora is not None and (deltas := getattr(lora, network)):
                scales = [dict(row).get(name, 0.0) for row in rows]
                found.append((deltas, self._transfers.put(scales, torch.float32)))
        return found

    def _lora(self, networks: Placed, weights: Weights, name: str) -> Lora | None:
        def read() -> Lora | None:
            file = self._files.lora(name)
            if file is None:
                return None
            whole = networks.networks
            encoders = (whole.text_encoder, whole.text_encoder_2)
            lora = read_lora(file.tensors, whole.unet, *encoders, file.metadata, f"the LoRA {name!r}")
            if lora.unused:
                few = f"{len(lora.unused)} tensors of the LoRA {name!r} have no use"
                self._note(f"{weights.model}: {few}, {lora.unused[0]} among them")
            return lora.to(self._transfers.device, whole.unet.dtype)

        found = self._kept(("lora", name, *self._layout(networks.networks)), read)
        assert found is None or isinstance(found, Lora)
        return found

    def _layout(self, networks: Networks) -> tuple[object, ...]:
        """Equal for checkpoints that a LoRA is laid out for in the same way."""
        every = (networks.unet, *networks.text_encoders)
        return networks.unet.dtype, *(self._layers_of(network).layout for network in every)

    def _hypernetwork(self, name: str, dtype: torch.dtype) -> Hypernetwork | None:
        def read() -> Hypernetwork | None:
            found = self._files.hypernetwork(name)
            return None if found is None else found.to(self._transfers.device, dtype)

        found = self._kept(("hypernetwork", name, dtype), read)
        assert found is None or isinstance(found, Hypernetwork)
        return found

    def _kept(
        self, key: tuple[object, ...], read: Callable[[], Lora | Hypernetwork | None]
    ) -> Lora | Hypernetwork | None:
        if key in self._failed:  # it would be read again for each row of each cell
            raise CellFailed(self._failed[key])
        if key not in self._held:
            with self._loading(Kind(f"load {key[0]}", str(key[1]), "")):
                try:
                    found = read()
                except FarmError as error:
                    self._failed[key] = str(error)
                    raise
            self._held[key] = found
            while len(self._held) > 1 and self._size() > HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]

    def _size(self) -> int:
        return sum(one.size for one in self._held.values() if one is not None)

    def _layers_of(self, network: Any) -> "_Layers":
        if network not in self._layers:
            by_path = layers_of(network)
            # what a layer is made of stands in its text, strides and padding included
            layout = hash(
                tuple((path, str(layer.module), str(layer.outputs)) for path, layer in by_path.items())
            )
            self._layers[network] = _Layers(by_path, layout)
        return self._layers[network]


class _Layers(NamedTuple):
    """Of a network.

    Attributes:
        by_path: all of them.
        layout: equal for networks with the same layers.
    """

    by_path: Mapping[str, Layer]
    layout: int
