"""Latents become pictures that can be shown, or what is wrong with them."""

from typing import Any

import torch

from farm.render.broken import Broken, Fault
from farm.render.strips import decode_in_strips
from farm.render.transfers import Transfers


def decoded(
    vae: Any, dtype: torch.dtype, latents: torch.Tensor, transfers: Transfers, in_strips: bool
) -> list[Any]:
    """A picture for each of the latents, uint8 `(height, width, 3)` on the host, or a `Broken` in its place.

    What is wrong with a picture is found out on the device, and comes with it without a wait.

    Args:
        vae: an `AutoencoderKL`.
        dtype: of the VAE.
        latents: `(rows, 4, height/8, width/8)`.
        transfers: from the device; the answers may be `farm.render.transfers.Later`s.
        in_strips: whether the VAE works strip by strip, for want of room.
    """
    scaled = (latents / vae.config.scaling_factor).to(dtype)
    if in_strips:
        pictures, latents = decode_in_strips(vae, scaled).float(), latents.cpu()
    else:
        pictures = vae.decode(scaled, return_dict=False)[0].float()
    pixels = ((pictures / 2 + 0.5).clamp(0, 1).nan_to_num() * 255).round().to(torch.uint8)
    marks = torch.stack((_finite(latents), _finite(pictures), pixels.flatten(1).any(1)), 1)
    answers: list[Any] = transfers.fetch((pixels.permute(0, 2, 3, 1), marks), _pictures)
    return answers


def _finite(tensors: torch.Tensor) -> torch.Tensor:
    return tensors.isfinite().flatten(1).all(1)


def _pictures(fetched: list[torch.Tensor]) -> list[Any]:
    """On the host: each picture, or what is wrong with it."""
    pixels, marks = fetched
    faults = [_fault(*map(bool, row)) for row in marks.tolist()]
    return [row if fault is None else Broken(fault) for row, fault in zip(pixels, faults, strict=True)]


def _fault(latents: bool, picture: bool, lit: bool) -> Fault | None:
    if not latents:
        return Fault.LATENTS
    if not picture:
        return Fault.PICTURE
    return None if lit else Fault.BLACK
