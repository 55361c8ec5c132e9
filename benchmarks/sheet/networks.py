"""The networks that the sheet is rendered with: the included model, or random weights of a known size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from farm.cli.jobs import look_around
from farm.render.device import dtype_for
from farm.weights.checkpoint import Networks
from farm.weights.loading import load_checkpoint

TINY_CATS = "tiny-cats"

TOY_PIXELS = 64

Config = Mapping[str, Any]

SD15: Config = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
"""Of the UNet; what is not said is as diffusers' class has it, which was made after this model."""

SDXL: Config = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
}
"""Without the size and the pooled text that SDXL is told besides, which are 0.01 % of its work."""

VAE: Config = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
"""Of both."""

TOY_SD15: Config = {
    **SD15,
    "block_out_channels": (16, 16, 32, 32),
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
}
TOY_SDXL: Config = {
    **SDXL,
    "block_out_channels": (16, 32, 32),
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": (2, 4, 4),
}
TOY_VAE: Config = {**VAE, "block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4}


@dataclass(frozen=True, slots=True)
class Size:
    """How large the networks are.

    Attributes:
        pixels: of the pictures' sides, that they are made for.
        load: onto a device, in a precision as of settings.
    """

    pixels: int
    load: Callable[[torch.device, str], Networks]


def tiny_cats(device: torch.device, precision: str = "auto") -> Networks:
    """The included model."""
    checkpoint = look_around(None).checkpoints[TINY_CATS]
    return load_checkpoint(checkpoint.path, device, dtype_for(precision, device))


def _random(unet: Config, vae: Config, text_layers: int) -> Callable[[torch.device, str], Networks]:
    """Random weights; the tokenizer and the noise levels are tiny-cats'."""

    def load(device: torch.device, precision: str) -> Networks:
        small, dtype = tiny_cats(torch.device("cpu")), dtype_for(precision, device)
        words = {
            name: getattr(small.text_encoder.config, name)
            for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
        }
        width = unet["cross_attention_dim"]
        text = CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=text_layers,
            num_attention_heads=max(1, width // 64),
            **words,
        )
        torch.manual_seed(0)
        with device:
            parts: tuple[Any, ...] = UNet2DConditionModel(**unet), AutoencoderKL(**vae), CLIPTextModel(text)
        network, decoder, encoder = (part.to(device, dtype).eval().requires_grad_(False) for part in parts)
        return Networks(network, decoder, encoder, small.tokenizer, small.scheduler_config)

    return load


SIZES: Mapping[str, Size] = {
    TINY_CATS: Size(64, tiny_cats),
    "sd15": Size(512, _random(SD15, VAE, text_layers=12)),
    # one text encoder in the place of SDXL's two, with about their work
    "sdxl": Size(1024, _random(SDXL, VAE, text_layers=14)),
}

TOYS: Mapping[str, Size] = {
    TINY_CATS: SIZES[TINY_CATS],
    "sd15": Size(TOY_PIXELS, _random(TOY_SD15, TOY_VAE, text_layers=2)),
    "sdxl": Size(TOY_PIXELS, _random(TOY_SDXL, TOY_VAE, text_layers=2)),
}
"""The same blocks with few channels, so that all of it runs through on a CPU."""


def unet_flops(config: Config, pixels: int) -> int:
    """Floating-point operations of a row, a multiply and an add counted as two.

    Args:
        config: of a `UNet2DConditionModel`.
        pixels: of the picture's sides.
    """
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        unet: Any = UNet2DConditionModel.from_config(dict(config))
        states = torch.empty(1, 77, unet.config.cross_attention_dim)
        unet(torch.empty(1, 4, pixels // 8, pixels // 8), torch.empty(1), states, return_dict=False)
    return int(counter.get_total_flops())


def decoding_flops(config: Config, pixels: int) -> int:
    """As `unet_flops`, of a picture that an `AutoencoderKL` decodes."""
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        vae: Any = AutoencoderKL.from_config(dict(config))
        vae.decode(torch.empty(1, 4, pixels // 8, pixels // 8), return_dict=False)
    return int(counter.get_total_flops())
