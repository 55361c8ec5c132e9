"""Networks laid out for what they run on."""

from dataclasses import replace
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, FusedAttnProcessor2_0

from farm.weights.checkpoint import Networks


def tuned(networks: Networks, device: torch.device) -> Networks:
    """The same networks, faster; what they answer changes by roundings only.

    NVIDIA's cards convolve half-precision numbers fastest with the channels last, and one product of large
    matrices is faster than three: query, key and value are projected together. Attention itself is PyTorch's
    `scaled_dot_product_attention`, which takes the best kernel for the card. On other devices nothing of
    this was found to pay.

    Args:
        networks: on the device; changed in place.
        device: where they are.
    """
    return faster(networks) if device.type == "cuda" else networks


def tuned_vae(vae: Any, device: torch.device) -> Any:
    """As `tuned`, of a VAE alone."""
    return vae.to(memory_format=torch.channels_last) if device.type == "cuda" else vae


def faster(networks: Networks) -> Networks:
    """What `tuned` does for a card."""
    unet: Any = networks.unet.to(memory_format=torch.channels_last)
    _fuse(unet)
    return replace(networks, unet=unet, vae=networks.vae.to(memory_format=torch.channels_last))


def _fuse(unet: Any) -> None:
    """Fuses projections as diffusers' `fuse_qkv_projections` does, which also keeps what it fused.

    Networks with attention that diffusers cannot fuse stay as they are.
    """
    if any("Added" in type(processor).__name__ for processor in unet.attn_processors.values()):
        return
    apart = [module for module in unet.modules() if isinstance(module, Attention) and hasattr(module, "to_k")]
    for attention in apart:
        attention.fuse_projections()
        for fused in ("to_k", "to_v") if attention.is_cross_attention else ("to_q", "to_k", "to_v"):
            delattr(attention, fused)
    if apart:
        unet.set_attn_processor(FusedAttnProcessor2_0())
