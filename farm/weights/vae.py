"""VAEs become networks: those of checkpoints, and those in files and folders of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from farm.errors import CellFailed, FarmError, described
from farm.weights.contents import BadFile
from farm.weights.device_errors import is_out_of_memory
from farm.weights.filling import Unfit, filled
from farm.weights.original_layout import VAE
from farm.weights.reading import read_tensors
from farm.weights.vae_layout import VaeLayout, vae_layout_of

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
"""Of a folder of diffusers; the first that is there counts."""

_EARLIER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Layers of attention, as diffusers called them at first."""


def load_vae(path: Path, scaling_factor: float, device: torch.device, dtype: torch.dtype) -> Any:
    """Loads a VAE, an `AutoencoderKL`, from a file or a folder of diffusers.

    Args:
        path: of a VAE, or of a checkpoint whose VAE is wanted.
        scaling_factor: of latents, as the UNet was trained with them: the checkpoint's, not the VAE's.
        device: for it.
        dtype: of it.

    Raises:
        CellFailed: it cannot be read, or is no VAE of Stable Diffusion.
    """
    try:
        layout = vae_layout_of(path)
        tensors = read_tensors(_file(path))
        vae = vae_in(tensors, layout, scaling_factor, dtype)
        return vae.to(device).eval().requires_grad_(False)
    except BadFile as error:
        raise CellFailed(f"VAE {error}") from error
    except Exception as error:  # whatever the libraries raise about files that are foreign
        if is_out_of_memory(error):
            raise
        reason = str(error) if isinstance(error, Unfit) else described(error)
        raise CellFailed(f"VAE {path}: {reason}") from error


def vae_in(
    tensors: Mapping[str, torch.Tensor], layout: VaeLayout, scaling_factor: float, dtype: torch.dtype
) -> Any:
    """A VAE on the host.

    Args:
        tensors: that it is among.
        layout: how they are named.
        scaling_factor: of latents.
        dtype: of the network.

    Raises:
        Unfit: the tensors do not make it.
    """
    with torch.device("meta"):
        vae: Any = AutoencoderKL.from_config({**layout.config, "scaling_factor": scaling_factor})
    own = {
        name.removeprefix(layout.prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(layout.prefix)
    }
    if layout.is_original:
        prefixed = {f"{VAE}{name}": tensor for name, tensor in own.items()}
        own = convert_ldm_vae_checkpoint(prefixed, layout.config)
    else:
        own = {_renamed(name): tensor for name, tensor in own.items()}
    return filled(vae, own, dtype, "VAE")


def read_vae(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a VAE in the layout of diffusers, by the names that they have there today.

    Raises:
        BadFile: it cannot be read.
        FarmError: a folder has none.
    """
    return {_renamed(name): tensor for name, tensor in read_tensors(_file(path)).items()}


def _renamed(name: str) -> str:
    *before, layer, last = name.split(".")
    if layer in _EARLIER and "attentions" in before:
        return ".".join([*before, _EARLIER[layer], last])
    return name


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    there = [path / name for name in WEIGHTS if (path / name).is_file()]
    if not there:
        raise FarmError(f"there is no {WEIGHTS[0]} in it")
    return there[0]
