"""What the networks of inpainting checkpoints see besides the latents, where nothing is left to be seen.

As A1111 does it without a mask, from noise alone and from a picture too: all of the picture is to be painted,
so that the mask is 1 everywhere and what it leaves is gray.
"""

from functools import partial

import torch

from farm.cell import Settings
from farm.render.init_latents import encoded
from farm.render.model import Model
from farm.render.requests import Coroutine, Share, Weights
from farm.weights.fit import INPAINTING

GRAY = 127.5
"""Half of 255: no number of a picture, and 0 to the VAE."""


def channels_beside(settings: Settings, weights: Weights, model: Model) -> Coroutine:
    """The channels behind the latents `(5, height/8, width/8)`, made once for all cells of a size.

    Returns:
        The mask and the latents of what it leaves, None where the UNet takes latents alone; and a remark on
        them.

    Raises:
        Broken: there are numbers in them that are none; at fp32 there may be others.
    """
    if model.input_channels != INPAINTING:
        return None, ""
    gray = partial(torch.full, (settings.height, settings.width, 3), GRAY)
    latents, remark = yield Share(
        ("nothing to be seen", weights, settings.other_vae, settings.width, settings.height),
        lambda _: encoded(gray(), weights, model, settings.other_vae),
    )
    mask = torch.ones_like(latents[:1])
    return torch.cat((mask, latents)), remark
