"""Files of LoRA become what is added to a checkpoint's layers."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from farm.errors import CellFailed, quoted
from farm.weights.deltas import Delta
from farm.weights.layers import layers_of, names_of, path_in
from farm.weights.lora_bases import base_of
from farm.weights.lora_keys import NETWORKS, Key, key_of
from farm.weights.lora_parts import UNSUPPORTED, Misfit, delta_of
from farm.weights.peft_settings import PeftSettings, peft_settings


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """What a file adds, by the paths of layers in each network.

    Attributes:
        unet: to the UNet's.
        text_encoder: to the text encoder's.
        text_encoder_2: to those of SDXL's other one.
        unused: names of tensors that belong to no layer, or are unknown.
    """

    unet: Mapping[str, Delta]
    text_encoder: Mapping[str, Delta]
    text_encoder_2: Mapping[str, Delta]
    unused: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        networks = (self.unet, self.text_encoder, self.text_encoder_2)
        return sum(delta.size for deltas in networks for delta in deltas.values())

    def to(self, device: torch.device, dtype: torch.dtype) -> "Lora":
        """The same on a device, in a type: that of the networks."""

        def moved(deltas: Mapping[str, Delta]) -> Mapping[str, Delta]:
            return {path: delta.to(device, dtype) for path, delta in deltas.items()}

        return replace(
            self,
            unet=moved(self.unet),
            text_encoder=moved(self.text_encoder),
            text_encoder_2=moved(self.text_encoder_2),
        )


def read_lora(
    tensors: Mapping[str, torch.Tensor],
    unet: nn.Module,
    text_encoder: nn.Module,
    text_encoder_2: nn.Module | None = None,
    metadata: Mapping[str, str] | None = None,
    name: str = "this LoRA",
) -> Lora:
    """Finds the layers that tensors are for, whatever their names, and computes what is added to each.

    Args:
        tensors: of the file, on the host.
        unet: of the checkpoint; of this and the others only names and shapes of layers matter, so that they
            may lie on any device, `meta` too.
        text_encoder: of the checkpoint.
        text_encoder_2: of an SDXL checkpoint.
        metadata: of a safetensors file. What PEFT writes beside its files, `adapter_config.json`, is
            understood as the value of `lora_adapter_metadata`.
        name: of the file, for messages.

    Raises:
        CellFailed: tensors do not fit their layers, most have none, or they are of a kind that is not
            supported (DoRA, OFT, IA3, GLoRA).
    """
    networks = dict(zip(NETWORKS, (unet, text_encoder, text_encoder_2), strict=True))
    reading = _Reading({key: network for key, network in networks.items() if network is not None})
    try:
        return reading.lora(tensors, metadata or {})
    except ValueError as error:
        base = reading.base() if isinstance(error, Misfit) else None
        hint = f"; it seems to be for {base}" if base else ""
        raise CellFailed(f"{name} cannot be applied to this checkpoint: {error}{hint}") from error


class _Reading:
    """A file while it is read."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._layers = {name: layers_of(network) for name, network in networks.items()}
        self._names = {name: names_of(networks[name], self._layers[name]) for name in networks}
        self._keys: dict[str, Key] = {}
        self._tensors: Mapping[str, torch.Tensor] = {}
        self._settings: Mapping[str, PeftSettings] = {}

    def lora(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Lora:
        """Raises ValueError if it is none for these networks."""
        self._tensors = tensors
        self._keys = {name: key for name in tensors if (key := key_of(name))}
        if not self._keys:
            raise ValueError("it has no tensors as a LoRA has")
        parts = {key.part for key in self._keys.values()}
        if odd := next((kind for part, kind in UNSUPPORTED.items() if part in parts), None):
            raise ValueError(f"it is {odd}, which is not supported")
        self._settings = {name: peft_settings(metadata, name) for name in self._layers}
        found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        strangers: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, key in self._keys.items():
            if place := self._place(key):
                if key.part in found[place]:
                    raise ValueError(f"{quoted(name)} says again what {quoted(found[place][key.part])} does")
                found[place][key.part] = name
            else:
                strangers[key.networks[0], key.layer].append(name)
        if len(strangers) > len(found):
            _, first = next(iter(strangers))
            of_all = f"{len(strangers)} of the {len(strangers) + len(found)} layers that it changes"
            raise Misfit(f"{of_all} are not there, {quoted(first)} among them")
        deltas: dict[str, dict[str, Delta]] = {name: {} for name in NETWORKS}
        unused = [name for name in tensors if name not in self._keys] + sum(strangers.values(), [])
        for (network, path), names in found.items():
            delta, unused_parts = self._delta(network, path, names)
            unused += [names[part] for part in unused_parts]
            if delta is not None:
                deltas[network][path] = delta
        return Lora(**deltas, unused=tuple(unused))

    def base(self) -> str | None:
        """What it seems to be for."""
        shapes = ((key, tuple(self._tensors[name].shape)) for name, key in self._keys.items())
        return base_of((key.networks[0], key.layer, key.part, shape) for key, shape in shapes)

    def _place(self, key: Key) -> tuple[str, str] | None:
        """The network and the layer's path in it."""
        for network in key.networks:
            if network in self._names and (path := path_in(self._names[network], key.layer)):
                return network, path
        return None

    def _delta(
        self, network: str, path: str, names: Mapping[str, str]
    ) -> tuple[Delta | None, tuple[str, ...]]:
        """What tensors add to a layer, and the parts that are not used."""
        parts = {part: self._tensors[name].float() for part, name in names.items()}
        try:
            alpha = _number(parts.pop("alpha")) if "alpha" in parts else None

            def scale(rank: int | None) -> float:
                if alpha is None:
                    return self._settings[network].scale(path, rank)
                return alpha / rank if rank else 1.0  # of LyCORIS' files

            return delta_of(parts, self._layers[network][path], scale)
        except ValueError as error:
            raise type(error)(f"{network}.{path}: {error}") from error


def _number(tensor: torch.Tensor) -> float:
    if tensor.numel() != 1:
        raise ValueError("alpha is more than a number")
    return float(tensor)
