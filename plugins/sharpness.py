"""Score how sharp a picture is: the variance of the Laplacian of its luma.

Luma is 0.299 R + 0.587 G + 0.114 B of the 8-bit values; the Laplacian is the sum of a pixel's four
neighbours less four times the pixel, taken where all four exist. After Pech-Pacheco and others, "Diatom
autofocusing in brightfield microscopy: a comparative study", ICPR 2000.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from farm.hooks import hookimpl

if TYPE_CHECKING:
    import PIL.Image

__version__ = "1"


@hookimpl
def score_image(image: PIL.Image.Image) -> dict[str, float]:
    """One number, 0 for an even picture; it grows with contrast as well as with focus."""
    import numpy as np

    luma = np.asarray(image, dtype=np.float64) @ np.array([0.299, 0.587, 0.114])
    neighbours = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return {"sharpness": float(np.var(neighbours - 4 * luma[1:-1, 1:-1]))}
