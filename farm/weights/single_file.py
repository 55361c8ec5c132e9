"""Checkpoints in a single file, in the layout of CompVis' and Stability's code, become networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from farm.weights.architecture import Architecture, TextEncoder, architecture_of
from farm.weights.checkpoint import Networks
from farm.weights.contents import BadFile
from farm.weights.fit import check_fit
from farm.weights.original_layout import UNET, VAE
from farm.weights.reading import read_tensors
from farm.weights.tokenizer import CLIP, load_tokenizer

State = dict[str, torch.Tensor]

_NOT_WEIGHTS = ("embeddings.position_ids", "logit_scale", "attn_mask")
"""In files, of text encoders: constants, and what only training needs."""


def load_single_file(path: Path, device: torch.device, dtype: torch.dtype) -> Networks:
    """Loads a checkpoint from its file, which is mapped into memory and not copied unless it has to be.

    Raises:
        BadFile: it is no checkpoint that is supported, or cannot be read.
    """
    architecture = architecture_of(path)
    tensors = read_tensors(path)
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
    except _Unfit as error:
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
    check_fit(unet, networks.text_encoder_2)
    return networks


class _Unfit(ValueError):
    """Tensors that do not make the network they should."""


def _unet(architecture: Architecture, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Any:
    config = {"layers_per_block": 2, **architecture.unet}
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(UNET)}
    converted = convert_ldm_unet_checkpoint(own, config)
    if len(converted) != len(own):
        raise _Unfit(f"{len(own) - len(converted)} tensors of its UNet have no place in it")
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(dict(architecture.unet))
    return _filled(unet, converted, dtype, "UNet")


def _vae(architecture: Architecture, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Any:
    if architecture.vae is None:
        raise _Unfit("it has no VAE")
    return vae_of(tensors, VAE, architecture.vae, architecture.scaling_factor, dtype)


def vae_of(
    tensors: Mapping[str, torch.Tensor],
    prefix: str,
    config: Mapping[str, Any],
    scaling_factor: float,
    dtype: torch.dtype,
) -> Any:
    """A VAE in the original layout.

    Args:
        tensors: that it is among.
        prefix: of its tensors' names.
        config: for `AutoencoderKL`.
        scaling_factor: of latents.
        dtype: of the network.

    Raises:
        ValueError: the tensors do not make it.
    """
    own = {
        VAE + name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }
    with torch.device("meta"):
        vae: Any = AutoencoderKL.from_config({**config, "scaling_factor": scaling_factor})
    return _filled(vae, convert_ldm_vae_checkpoint(own, dict(config)), dtype, "VAE")


def _text_encoder(
    encoder: TextEncoder, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, projects: bool
) -> Any:
    """SDXL's second one also tells of the whole text (`projects`)."""
    with torch.device("meta"):
        kind: Any = CLIPTextModelWithProjection if projects else CLIPTextModel
        network = kind(CLIPTextConfig(**encoder.config))
    converted = _of_open_clip(encoder, tensors, network) if encoder.is_open else _of_clip(encoder, tensors)
    if not projects:
        converted = {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}
        converted.pop("text_projection.weight", None)
    return _filled(network, converted, dtype, "text encoder")


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


def _filled(network: Any, state: Mapping[str, torch.Tensor], dtype: torch.dtype, called: str) -> Any:
    """A network that was made without memory, with these tensors as its own."""
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise _Unfit(f"tensor {name} of its {called} is {tensor.dtype}, not numbers with fractions")
    wanted = network.state_dict()
    if missing := sorted(wanted.keys() - state.keys()):
        raise _Unfit(f"its {called} lacks {len(missing)} tensors, {missing[0]} among them")
    if others := sorted(state.keys() - wanted.keys()):
        raise _Unfit(f"{len(others)} tensors of its {called} have no place in it, {others[0]} among them")
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            there, here = list(tensor.shape), list(wanted[name].shape)
            raise _Unfit(f"tensor {name} of its {called} has the shape {there}, not {here}")
    network.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
    _count_positions(network)
    return network


def _count_positions(network: Any) -> None:
    """Text encoders count their positions in a buffer, which files do not have."""
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                assert name == "position_ids", name
                setattr(module, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))
