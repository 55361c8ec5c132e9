"""The latents of pictures that pictures start from: encoded once, and shared."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from farm.cell import Settings
from farm.errors import CellFailed
from farm.pictures import prepared
from farm.questions import Draw
from farm.render.broken import Broken
from farm.render.model import Model
from farm.render.requests import Coroutine, EncodeImage, Share, Weights

Pictures = Mapping[str, bytes]
"""The content of files that hold pictures, by its SHA-256 in hex."""


def init_latents_of(settings: Settings, weights: Weights, model: Model, pictures: Pictures) -> Coroutine:
    """The latents `(4, height/8, width/8)` of the picture that a cell starts from, encoded once for all.

    Returns:
        The latents, None where it starts from noise alone; and a remark on them.

    Raises:
        Broken: there are numbers in them that are none; at fp32 there may be others.
        CellFailed: the picture is not here.
    """
    if not settings.init_image:
        return None, ""
    if (content := pictures.get(settings.init_image)) is None:
        raise CellFailed(f"the picture {settings.init_image[:10]} to start from is not on this machine")
    size = (settings.width, settings.height)
    key = ("init image", weights, settings.init_image, *size)
    return (yield Share(key, partial(_encoded, content, size, weights, model.is_precise)))


class _Pixels:
    """Makes a picture ready, in the threads that draw noise: large ones take a tenth of a second and more."""

    def __init__(self, content: bytes, size: tuple[int, int]) -> None:
        self._content = content
        self._size = size

    def draw(self, sigma: float | None = None, lower: float | None = None) -> torch.Tensor:
        """Its pixels, uint8 `(height, width, 3)`."""
        return torch.from_numpy(np.array(prepared(self._content, *self._size)))


def _encoded(
    content: bytes, size: tuple[int, int], weights: Weights, is_precise: bool, _: torch.Generator
) -> Coroutine:
    """The recipe. What overflows in a VAE at half precision is encoded in fp32."""
    pixels = yield Draw(_Pixels(content, size))
    try:
        return (yield EncodeImage(weights, pixels)), ""
    except Broken as broken:
        if is_precise:
            raise
        remark = f"encoded at fp32, since {broken.fault.value}"
    return (yield EncodeImage(weights, pixels, precise=True)), remark
