"""The latents of pictures that pictures start from: encoded once, and shared."""

from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from farm.cell import Settings
from farm.errors import CellFailed
from farm.init_pixels import InitPixels
from farm.render.broken import Broken
from farm.render.model import Model
from farm.render.requests import Coroutine, EncodeImage, Share, Weights
from farm.starting import init_pictures


def init_latents_of(settings: Settings, weights: Weights, model: Model, pictures: InitPixels) -> Coroutine:
    """The latents `(4, height/8, width/8)` of the picture that a cell starts from, encoded once for all.

    Returns:
        The latents, None where it starts from noise alone; and a remark on them.

    Raises:
        Broken: there are numbers in them that are none; at fp32 there may be others.
        CellFailed: the picture is not here.
    """
    if not settings.init_image:
        return None, ""
    [wanted] = init_pictures([settings])
    if (pixels := pictures.get(wanted)) is None:
        raise CellFailed(f"the picture {wanted.init_image[:10]} to start from is not on this machine")
    recipe = partial(_of_picture, pixels, weights, model, settings.other_vae)
    return (yield Share(("init image", weights, settings.other_vae, *wanted), recipe))


def _of_picture(
    picture: npt.NDArray[np.uint8], weights: Weights, model: Model, vae: str, _: torch.Generator
) -> Coroutine:
    """The recipe."""
    return (yield from encoded(torch.tensor(picture), weights, model, vae))


def encoded(pixels: torch.Tensor, weights: Weights, model: Model, vae: str) -> Coroutine:
    """The latents of a picture, and a remark. What overflows in a VAE at half precision is encoded in fp32.

    Args:
        pixels: `(height, width, 3)` on the host, 0 to 255.
        weights: whose VAE.
        model: theirs.
        vae: the name of another one than theirs; empty for theirs.
    """
    try:
        return (yield EncodeImage(weights, pixels, model.decodes_precisely, vae)), ""
    except Broken as broken:
        if model.is_precise or model.decodes_precisely:
            raise
        remark = f"encoded at fp32, since {broken.fault.value}"
    return (yield EncodeImage(weights, pixels, True, vae)), remark
