"""Whether checkpoints can be merged, told from what they consist of. Without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from farm.weights.architecture import INPAINTING_CHANNELS, Architecture
from farm.weights.contents import BadFile

IN_CHANNELS = "in_channels"


def check_parts(architectures: Sequence[Architecture], paths: Sequence[Path]) -> None:
    """Whether checkpoints are built alike, but for the channels of an inpainting one, which comes first.

    Args:
        architectures: of each.
        paths: of each, for messages.

    Raises:
        BadFile: they cannot be merged.
    """
    first, path = architectures[0], paths[0]
    for other, others_path in zip(architectures[1:], paths[1:]):
        if other.family != first.family:
            both = f"it is {other.variant}, and {path.name} is {first.variant}"
            raise BadFile(f"{others_path}: {both}; only checkpoints of one family can be merged")
        if other.unet[IN_CHANNELS] == INPAINTING_CHANNELS != first.unet[IN_CHANNELS]:
            raise BadFile(f"{others_path}: it is for inpainting, and must come first in a merge with others")
        for what, there, here in _networks(other, first):
            if there != here:
                raise BadFile(f"{others_path}: its {what} is built otherwise than that of {path.name}")
    if len({one.unet[IN_CHANNELS] for one in architectures[1:]}) > 1:
        raise BadFile(f"{paths[2]}: only one of it and {paths[1].name} is for inpainting")


def _networks(one: Architecture, other: Architecture) -> list[tuple[str, Any, Any]]:
    def unet(architecture: Architecture) -> dict[str, Any]:
        ignored = (IN_CHANNELS, "upcast_attention")
        return {name: value for name, value in architecture.unet.items() if name not in ignored}

    def texts(architecture: Architecture) -> list[Any]:
        return [encoder.config for encoder in architecture.text_encoders]

    vaes = [(one.vae, other.vae)] if one.vae and other.vae else []
    return [
        ("UNet", unet(one), unet(other)),
        *(("VAE", *both) for both in vaes),
        ("text encoder", texts(one), texts(other)),
    ]
