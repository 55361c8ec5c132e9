"""Embeddings that travel in pictures, as A1111 writes them (modules/textual_inversion/image_embedding.py).

A PNG has one in the text chunk `sd-ti-embedding`: JSON in base64, in which an object `{"TORCHTENSOR": [[…]]}`
is a tensor. Any picture without loss can have one in its pixels: behind the outermost column that is black in
its low bits, on each side, a block holds half of the bits of the same JSON, packed by zlib. The left one has
the low four bits of each byte, the right one the high four, both in the low four bits of their pixels' red,
green and blue, row by row, and mixed with pseudo-random numbers.
"""

import base64
import io
import json
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from farm.errors import described, quoted
from farm.pictures import in_threads
from farm.weights.tensor_info import BadFile

CHUNK = "sd-ti-embedding"
"""The keyword of the PNG text chunk."""

FORMATS = ("PNG", "WEBP", "AVIF")
"""Without loss, or they can be; Pillow reads many more, some of them badly tested."""

LARGEST = 64 * 1024**2
"""Bytes of JSON; 75 vectors of SDXL are about 3 MB."""

_Pixels = npt.NDArray[np.uint8]


def read_picture(content: bytes, name: str) -> Any:
    """What A1111 wrote into a picture, for `farm.weights.embedding.read_embedding`.

    Args:
        content: of the picture's file.
        name: of the embedding, for messages.

    Raises:
        BadFile: no embedding is in it, or it is torn.
    """
    try:
        [written] = in_threads(_written, [content])
        return json.loads(written, object_hook=_tensor)
    except BadFile as error:
        raise BadFile(f"the embedding {quoted(name)}: {error}") from error
    except Exception as error:  # whatever Pillow, base64, zlib, JSON or torch raise about foreign bytes
        raise BadFile(f"the embedding {quoted(name)} cannot be read: {described(error)}") from error


def _written(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        text = getattr(image, "text", {}).get(CHUNK)
        if text is not None:
            return base64.b64decode(text, validate=True)
        return _from_pixels(np.asarray(image.convert("RGB")))


def _from_pixels(pixels: _Pixels) -> bytes:
    low = _without_frame(pixels) & np.uint8(0x0F)
    [black] = np.nonzero(low.max(axis=0).max(axis=1) == 0)
    if len(black) < 2:
        raise BadFile("there is none in this picture")
    left, right = _unmixed(low[:, : black[0]]), _unmixed(low[:, black[-1] + 1 :])
    if left.size != right.size or not left.size:
        raise BadFile("there is none in this picture")
    unpacking = zlib.decompressobj()
    found = unpacking.decompress((right << 4 | left).tobytes(), LARGEST)
    if not unpacking.eof:
        raise BadFile("what is in this picture is cut off, or no embedding")
    return found


def _without_frame(pixels: _Pixels) -> _Pixels:
    """The pixels without the rows and columns around them of which none has all three colours."""
    least = pixels.min(axis=2)
    [rows], [columns] = np.nonzero(least.max(axis=1)), np.nonzero(least.max(axis=0))
    if not len(rows):
        raise BadFile("there is none in this picture")
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _unmixed(block: _Pixels) -> _Pixels:
    return (block.reshape(-1) ^ (pseudo_random(block.size) & 0x0F)).astype(np.uint8)


def pseudo_random(count: int) -> _Pixels:
    """The numbers that blocks are mixed with: of a congruential generator, each by its remainder to 255.

    s ← 1664525 · s + 1013904223 modulo 2³², from 0; so the n-th is the increment times the sum of the
    multiplier's powers below n.
    """
    powers = np.full(count, 1664525, np.uint32)
    powers[:1] = 1
    sums = np.cumsum(np.cumprod(powers, dtype=np.uint32), dtype=np.uint32)
    return (sums * np.uint32(1013904223) % 255).astype(np.uint8)


def _tensor(found: dict[str, Any]) -> Any:
    return torch.tensor(found["TORCHTENSOR"], dtype=torch.float32) if "TORCHTENSOR" in found else found
