"""LoRA that are added to the tensors of a single file, and VAEs that take the place of its own."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from farm.errors import CellFailed
from farm.weights.architecture import Architecture, TextEncoder
from farm.weights.contents import BadFile, read_contents
from farm.weights.deltas import Delta
from farm.weights.layers import layers_of, original_names
from farm.weights.lora import read_lora
from farm.weights.original_layout import UNET, VAE
from farm.weights.reading import read_tensors
from farm.weights.single_file import empty_text_encoder, empty_unet
from farm.weights.vae import read_vae
from farm.weights.vae_layout import vae_layout_of

_OPEN_CLIP = (
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("final_layer_norm", "ln_final"),
)
"""Of the paths of layers, what transformers and what OpenCLIP call it."""

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
"""In OpenCLIP's files they are one tensor, in this order."""


@dataclass(frozen=True, slots=True)
class LoraUse:
    """A LoRA to be baked in.

    Attributes:
        path: of its file.
        text_weight: for text encoders.
        unet_weight: for the UNet.
    """

    path: Path
    text_weight: float
    unet_weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Addition:
    """What is added to a tensor of a file.

    Attributes:
        delta: of its layer.
        weight: of that.
        is_bias: whether it goes to a bias.
        rows: of the tensor, to which it is added; None is all.
        transposed: whether the file has the layer's weight so.
    """

    delta: Delta
    weight: float
    is_bias: bool = False
    rows: slice | None = None
    transposed: bool = False

    def add_to(self, tensor: torch.Tensor) -> None:
        """Adds it in place."""
        added = self.delta.bias() if self.is_bias else self.delta.matrix()
        assert added is not None
        place = tensor if self.rows is None else tensor[self.rows]
        place += self.weight * (added.T if self.transposed else added).reshape(place.shape)


def additions_of(
    lora: LoraUse, architecture: Architecture, note: Callable[[str], None]
) -> Iterator[tuple[str, Addition]]:
    """What a LoRA adds to a checkpoint, with the names of the tensors in its file.

    Args:
        lora: and its weights.
        architecture: of the checkpoint.
        note: is told what is left out.

    Raises:
        BadFile: it cannot be read, or is not for this checkpoint.
    """
    unet = empty_unet(architecture)
    encoders = architecture.text_encoders
    first, *others = (empty_text_encoder(one, number > 0) for number, one in enumerate(encoders))
    second = others[0] if others else None
    try:
        tensors, metadata = read_tensors(lora.path), read_contents(lora.path).metadata
        read = read_lora(tensors, unet, first, second, metadata, str(lora.path))
    except CellFailed as error:
        raise BadFile(str(error)) from error
    if read.unused:
        note(f"{lora.path}: {len(read.unused)} of its tensors have no use, {read.unused[0]} among them")
    names = dict(original_names(unet, layers_of(unet)))
    for path, delta in read.unet.items():
        yield from _both(f"{UNET}{names[path]}", delta, lora.unet_weight)
    for encoder, deltas in zip(encoders, (read.text_encoder, read.text_encoder_2)):
        for path, delta in deltas.items():
            yield from _of_text(encoder, path, delta, lora.text_weight)


def vae_tensors(path: Path, own: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The tensors of a VAE, by the names that they have in a checkpoint.

    Args:
        path: of the VAE: a file, or a folder of diffusers.
        own: shapes of the tensors of the checkpoint's own VAE, whose names those of diffusers get.

    Raises:
        BadFile: it cannot be read, or there is no place for its tensors.
    """
    layout = vae_layout_of(path)
    if not layout.is_original:
        return _of_diffusers(path, layout.config, own)
    parts = tuple(
        f"{layout.prefix}{part}." for part in ("encoder", "decoder", "quant_conv", "post_quant_conv")
    )
    return {
        f"{VAE}{name.removeprefix(layout.prefix)}": tensor
        for name, tensor in read_tensors(path).items()
        if name.startswith(parts)
    }


def _of_diffusers(
    path: Path, config: Mapping[str, Any], own: Mapping[str, tuple[int, ...]]
) -> dict[str, torch.Tensor]:
    """Turns diffusers' converter around: tensors filled with numbers show where each one goes."""
    names = list(own)
    marks = {name: torch.tensor(float(number)).expand(own[name]) for number, name in enumerate(names)}
    places = {
        name: names[int(mark.flatten()[0])]
        for name, mark in convert_ldm_vae_checkpoint(marks, config).items()
    }
    tensors = read_vae(path)
    if tensors.keys() != places.keys() or any(
        tensor.numel() != prod(own[places[name]]) for name, tensor in tensors.items()
    ):
        raise BadFile(f"{path}: it is built otherwise than the VAE whose place it would take")
    return {places[name]: tensor.reshape(own[places[name]]) for name, tensor in tensors.items()}


def by_tensor(additions: Iterable[tuple[str, Addition]]) -> dict[str, list[Addition]]:
    """Those of each tensor."""
    found: dict[str, list[Addition]] = {}
    for name, addition in additions:
        found.setdefault(name, []).append(addition)
    return found


def _both(layer: str, delta: Delta, weight: float) -> Iterator[tuple[str, Addition]]:
    yield f"{layer}.weight", Addition(delta, weight)
    if delta.bias() is not None:
        yield f"{layer}.bias", Addition(delta, weight, is_bias=True)


def _of_text(encoder: TextEncoder, path: str, delta: Delta, weight: float) -> Iterator[tuple[str, Addition]]:
    layer = path.removeprefix("text_model.")
    if not encoder.is_open:
        yield from _both(f"{encoder.prefix}{layer}", delta, weight)
        return
    if layer == "text_projection":
        yield f"{encoder.prefix}text_projection", Addition(delta, weight, transposed=True)
        return
    for theirs, ours in _OPEN_CLIP:
        layer = layer.replace(theirs, ours)
    parent, _, name = layer.rpartition(".")
    if name not in _PROJECTIONS:
        yield from _both(f"{encoder.prefix}{layer}", delta, weight)
        return
    width = encoder.config["hidden_size"]
    rows = slice(_PROJECTIONS.index(name) * width, (_PROJECTIONS.index(name) + 1) * width)
    attention = f"{encoder.prefix}{parent.replace('self_attn', 'attn')}"
    yield f"{attention}.in_proj_weight", Addition(delta, weight, rows=rows)
    if delta.bias() is not None:
        yield f"{attention}.in_proj_bias", Addition(delta, weight, is_bias=True, rows=rows)
