"""Pictures become latents that sampling can start from, or what is wrong with them."""

from typing import Any

import torch

from farm.render.broken import Broken, Fault
from farm.render.transfers import Transfers


def encoded(vae: Any, dtype: torch.dtype, pixels: torch.Tensor, transfers: Transfers) -> list[Any]:
    """Latents `(4, height/8, width/8)` for each picture, float32 on the device, or a `Broken` in their place.

    They are the mean of the VAE's distribution, times its scaling factor. What is wrong with them is found
    out on the device, and comes from there without a wait.

    Args:
        vae: an `AutoencoderKL`.
        dtype: of the VAE.
        pixels: `(rows, height, width, 3)` on the device, 0 to 255.
        transfers: from the device; the answers may be `farm.render.transfers.Later`s.
    """
    pictures = pixels.permute(0, 3, 1, 2).float() / 255 * 2 - 1
    mean = vae.encode(pictures.to(dtype)).latent_dist.mode()
    latents = mean.float() * vae.config.scaling_factor
    marks = latents.isfinite().flatten(1).all(1)

    def found(fetched: list[torch.Tensor]) -> list[Any]:
        whole = fetched[0].tolist()
        return [row if mark else Broken(Fault.ENCODED) for row, mark in zip(latents, whole, strict=True)]

    answers: list[Any] = transfers.fetch((marks,), found)
    return answers
