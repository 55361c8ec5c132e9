"""What a LoRA seems to be for, told from the names and sizes of its tensors."""

import re
from collections.abc import Iterable

FAMILIES = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL"}
"""By the width of what the UNet is told of texts; that of Stable Diffusion 2's text encoder is its own."""

_TOLD = {"unet": re.compile(r".*attn2[._]to_[kv]"), "text_encoder": re.compile(r".*self_attn[._][qkv]_proj")}
_SHARED = ("text_encoder", 768)
"""Stable Diffusion 1 and SDXL have the same."""

_OTHERS = (
    ("Flux", re.compile(r"(?:transformer\.)?(?:double_blocks|single_blocks|single_transformer_blocks).*")),
    ("Stable Diffusion 3", re.compile(r"(?:transformer[._])?joint_blocks.*")),
    ("another kind of model", re.compile(r"transformer[._].*|blocks_\d+_.*|layers_\d+_.*")),
)


def base_of(layers: Iterable[tuple[str, str, str, tuple[int, ...]]]) -> str | None:
    """The family of models that tensors seem to be for; None if they do not tell.

    Args:
        layers: of each tensor, the network as `Key.networks` has it, the layer, the part and the shape.
    """
    text_widths: set[int] = set()
    others: list[str] = []
    for network, layer, part, shape in layers:
        if network == "text_encoder_2":
            return FAMILIES[2048]
        inputs = part in ("down", "hada_w1_b", "diff") and len(shape) > 1
        if inputs and _TOLD[network].fullmatch(layer) and (network, shape[1]) != _SHARED:
            text_widths.add(shape[1])
        others += [family for family, pattern in _OTHERS if pattern.fullmatch(layer)]
    known = [FAMILIES[width] for width in text_widths if width in FAMILIES]
    return next(iter(known + others), None)
