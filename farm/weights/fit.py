"""Whether a checkpoint's networks are such as can be asked, and fit each other."""

from typing import Any

from farm.errors import FarmError

TEXT_AND_SIZES = "text_time"
"""What diffusers calls it where a UNet is told a pooled text and sizes besides, as SDXL's is."""

SIZES = 6
"""Numbers that it is told: heights and widths, and where the picture was cropped."""

LATENTS = 4
INPAINTING = 9
"""Channels of a UNet's input: the latents; and a mask, and latents of what it leaves to be seen."""


def takes_sizes(unet: Any) -> bool:
    """Whether a UNet is told a pooled text and sizes besides, as SDXL's is."""
    return bool(unet.config.addition_embed_type == TEXT_AND_SIZES)


def check_words(tokenizer: Any, tokenizer_2: Any) -> None:
    """Finds whether two text encoders can be shown the same tokens; they may be padded in different ways.

    Raises:
        FarmError: they cannot.
    """
    if tokenizer.get_vocab() != tokenizer_2.get_vocab():
        raise FarmError("tokenizer and tokenizer_2 do not have the same words")


def check_fit(unet: Any, vae: Any, text_encoder_2: Any) -> None:
    """Finds what the networks ask for and nobody has.

    Args:
        unet: a `UNet2DConditionModel`.
        vae: an `AutoencoderKL`.
        text_encoder_2: a `CLIPTextModelWithProjection`, or None.

    Raises:
        FarmError: there is something of it.
    """
    config = unet.config
    if vae.config.latents_mean is not None:
        raise FarmError("the VAE's latents_mean is not supported; scaling_factor alone is")
    if config.in_channels not in (LATENTS, INPAINTING):
        raise FarmError(
            f"the UNet takes {config.in_channels} channels; {LATENTS} (as most do) or {INPAINTING} (for "
            "inpainting) are supported"
        )
    if config.addition_embed_type is None:
        return
    if not takes_sizes(unet):
        raise FarmError(f"the UNet's addition_embed_type {config.addition_embed_type!r} is not supported")
    if text_encoder_2 is None:
        raise FarmError("the UNet takes a pooled text, and there is no second text encoder to make it")
    room = config.projection_class_embeddings_input_dim - text_encoder_2.config.projection_dim
    if room != SIZES * config.addition_time_embed_dim:
        raise FarmError(
            f"the UNet is not told {SIZES} sizes besides the pooled text, as SDXL's is: that of a refiner "
            "is not supported"
        )
