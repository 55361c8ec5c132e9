"""Pictures that people have: whether they can be used, and how they are made ready for the networks."""

import io
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import ExifTags, Image, UnidentifiedImageError

from farm.init_images import NO_PICTURE

T = TypeVar("T")
R = TypeVar("R")

THREADS = min(4, os.cpu_count() or 1)
"""That read pictures; each holds one at its full size, a few times."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

_DEEP = ("I", "F")
"""Modes of Pillow with more than 8 bits, which it would cut off and not scale."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF's orientation."""

_GROUND = (255, 255, 255)
"""What lies behind a transparent picture: A1111's default."""


def faults_of(contents: Sequence[bytes]) -> list[str]:
    """Why files cannot be used, in words; empty if they can. All of them is looked at: some are torn."""
    return in_threads(_fault_of, contents)


def in_threads(function: Callable[[T], R], arguments: Iterable[T]) -> list[R]:
    """What a function that reads a picture makes of each argument; none of them prints Pillow's warnings."""
    with warnings.catch_warnings():  # here, since they are of all threads
        warnings.simplefilter("ignore")  # what is torn is said in words, or is harmless
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="picture") as pool:
            return list(pool.map(function, arguments))


def _fault_of(content: bytes) -> str:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.mode.startswith(_DEEP):
                return "has gray of more than 8 bits; 8 bits a channel are wanted"
            image.load()
            _upright(image)
    except UnidentifiedImageError:
        return NO_PICTURE
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels, which are too many"
    except Exception as error:  # Pillow's readers raise whatever a torn file leads them to
        return f"is a broken picture: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return ""


def prepared(content: bytes, width: int, height: int) -> Image.Image:
    """A picture as the VAE is to see it: upright, RGB, on white where it is transparent, resized.

    As A1111's "just resize": by Lanczos' filter, whatever that does to the proportions.

    Args:
        content: of a file that can be used.
        width: in pixels.
        height: in pixels.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        opened.load()
        image = _upright(opened)
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", image.size, _GROUND)
        image.paste(layer, mask=layer)
    if image.mode != "RGB":  # or a copy would be made
        image = image.convert("RGB")
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF data asks. Pillow's own way writes these anew, and raises where they are odd."""
    turned = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turned is None else image.transpose(turned)
