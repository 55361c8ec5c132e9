"""Pictures that people have: whether they can be used, and how they are made ready for the networks."""

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

_DEEP = ("I", "F")
"""Modes of Pillow with more than 8 bits, which it would cut off and not scale."""

_GROUND = (255, 255, 255, 255)
"""What lies behind a transparent picture: A1111's default."""


def fault_of(content: bytes) -> str:
    """Why a file cannot be used, in words; empty if it can. All of it is looked at: some are torn."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.mode.startswith(_DEEP):
                    return f"has pixels of Pillow's mode {image.mode}; 8 bits a channel are wanted"
                image.load()
                ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        return f"is no picture; {', '.join(FORMATS[:-1])} and {FORMATS[-1]} can be read"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels, which are too many"
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        return f"is a broken picture: {error}"
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
        image = ImageOps.exif_transpose(opened)
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, _GROUND)
        ground.alpha_composite(image.convert("RGBA"))
        image = ground
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
