"""Checkpoints in a single file, in the layout of CompVis' and Stability's code, become networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from farm.merges import Merge
from farm.weights.architecture import Architecture, TextEncoder, architecture_of
from farm.weights.checkpoint import Networks
from farm.weights.contents import BadFile
from farm.weights.filling import Unfit, filled
from farm.weights.fit import check_fit
from farm.weights.merge_parts import check_parts
from farm.weights.merging import Merging
from farm.weights.original_layout import UNET, VAE
from farm.weights.reading import read_tensors
from farm.weights.tokenizer import CLIP, load_tokenizer
from farm.weights.vae import vae_in
from farm.weights.vae_layout import VaeLayout

State = dict[str, torch.Tensor]

_NOT_WEIGHTS = ("embeddings.position_ids", "logit_scale", "attn_mask")
"""In files, of text encoders: constants, and what only training needs."""


def load_single_file(path: Path, device: torch.device, dtype: torch.dtype) -> Networks:
    """Loads a checkpoint from its file, which is mapped into memory and not copied unless it has to be.

    Raises:
        BadFile: it is no checkpoint that is supported, or cannot be read.
    """
    return networks_of(architecture_of(path), read_tensors(path), path, device, dtype)


def load_merge(merge: Merge[Path], device: torch.device, dtype: torch.dtype) -> Networks:
    """Loads a merge: its tensors are made in memory, in the type that is asked for.

    Raises:
        BadFile: its parts cannot be merged, or cannot be read.
    """
    architectures = [architecture_of(path) for path in merge.parts]
    check_parts(architectures, merge.parts)
    made = Merging(merge)
    tensors = {name: made.tensor(name).to(made.dtype(name, dtype)) for name in made}
    return networks_of(architectures[0], tensors, merge.parts[0], device, dtype)


def networks_of(
    architecture: Architecture,
    tensors: Mapping[str, torch.Tensor],
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
) -> Networks:
    """The networks that tensors make.

    Args:
        architecture: of the checkpoint.
        tensors: of it, in the original layout.
        path: of its file, for messages.
        device: for the networks.
        dtype: of them.

    Raises:
        BadFile: they do not make them.
    """
    try:
        unet, vae, *encoders = (
            network.to(device).eval().requires_grad_(False)
            for network in (
                _unet(architecture, tensors, dtype),
                _vae(architecture, tensors, dtype),
                *(_text_encoder(one, tensors, dtype, projects=number > 0)
                  for number, one in enumerate(architecture.text_encoders)),
            )
        )  # fmt: skip
    except Unfit as error:
        raise BadFile(f"{path}: {error}") from error
    tokenizers = [load_tokenizer(CLIP, pads_with_zero=one.is_open) for one in architecture.text_encoders]
    networks = Networks(
        unet=unet,
        vae=vae,
        text_encoder=encoders[0],
        tokenizer=tokenizers[0],
        scheduler_config=dict(architecture.scheduler),
        text_encoder_2=encoders[1] if len(encoders) > 1 else None,
        tokenizer_2=tokenizers[1] if len(encoders) > 1 else None,
    )
    check_fit(unet, vae, networks.text_encoder_2)
    return networks


def _unet(architecture: Architecture, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Any:
    config = {"layers_per_block": 2, **architecture.unet}
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(UNET)}
    converted = convert_ldm_unet_checkpoint(own, config)
    if len(converted) != len(own):
        raise Unfit(f"{len(own) - len(converted)} tensors of its UNet have no place in it")
    return filled(empty_unet(architecture), converted, dtype, "UNet")


def empty_unet(architecture: Architecture) -> Any:
    """The UNet, on the device `meta`."""
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(dict(architecture.unet))


def _vae(architecture: Architecture, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Any:
    if architecture.vae is None:
        raise Unfit("it has no VAE")
    layout = VaeLayout(dict(architecture.vae), VAE, is_original=True)
    return vae_in(tensors, layout, architecture.scaling_factor, dtype)


def _text_encoder(
    encoder: TextEncoder, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, projects: bool
) -> Any:
    """SDXL's second one also tells of the whole text (`projects`)."""
    network = empty_text_encoder(encoder, projects)
    converted = _of_open_clip(encoder, tensors, network) if encoder.is_open else _of_clip(encoder, tensors)
    if not projects:
        converted = {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}
        converted.pop("text_projection.weight", None)
    return filled(network, converted, dtype, "text encoder")


def empty_text_encoder(encoder: TextEncoder, projects: bool) -> Any:
    """A text encoder, on the device `meta`; SDXL's second one `projects`."""
    with torch.device("meta"):
        kind: Any = CLIPTextModelWithProjection if projects else CLIPTextModel
        return kind(CLIPTextConfig(**encoder.config))


def _of_clip(encoder: TextEncoder, tensors: Mapping[str, torch.Tensor]) -> State:
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(encoder.prefix)}
    converted: State = convert_ldm_clip_checkpoint(own)
    return {name: tensor for name, tensor in converted.items() if not name.endswith(_NOT_WEIGHTS)}


def _of_open_clip(encoder: TextEncoder, tensors: Mapping[str, torch.Tensor], network: Any) -> State:
    """Without the layers that are not used."""
    used = encoder.config["num_hidden_layers"]
    unused = tuple(f"{encoder.prefix}transformer.resblocks.{layer}." for layer in range(used, encoder.layers))
    own = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith(encoder.prefix) and not name.startswith(unused) and not name.endswith(_NOT_WEIGHTS)
    }
    converted: State = convert_open_clip_checkpoint(network, own, prefix=encoder.prefix)
    return converted
