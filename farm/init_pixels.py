"""Pictures to start from as the networks are shown them: made ready once, before they go to the workers."""

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from farm.errors import FarmError, described
from farm.init_images import InitImage
from farm.pictures import in_threads, prepared
from farm.starting import InitPicture

InitPixels = Mapping[InitPicture, npt.NDArray[np.uint8]]
"""Each `(height, width, 3)`. Ray has arrays in memory that the workers of a machine share."""


def made_ready(wanted: Collection[InitPicture], images: Mapping[str, InitImage]) -> InitPixels:
    """Pictures as the VAE is to see them.

    Args:
        wanted: which ones, at which sizes.
        images: their files, by SHA-256.

    Raises:
        FarmError: one of them cannot be had, for want of memory perhaps.
    """

    def pixels(one: InitPicture) -> npt.NDArray[np.uint8]:
        image = images[one.init_image]
        try:
            return np.asarray(prepared(image.content, one.width, one.height))
        except Exception as error:  # Pillow's readers raise whatever they are led to
            raise FarmError(f"init_image: {image.name}: {described(error)}") from error

    in_order = sorted(wanted)
    return dict(zip(in_order, in_threads(pixels, in_order), strict=True))
