"""Tiny networks of the architectures that are not Stable Diffusion 1.5's, with random weights.

They lie in folders as diffusers itself writes them. Weights as networks begin with say next to nothing of a
text, so theirs are larger: pictures of other texts must be other pictures.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from farm.weights.fit import INPAINTING
from tests.render.oracles import STABLE_DIFFUSION

PADDED_WITH = "!"
"""By SDXL's second tokenizer; the first one pads with the end mark."""


def sdxl_parts(words: Path, channels: int = 4, **scheduler: Any) -> dict[str, Any]:
    """The components of a pipeline of SDXL, with two text encoders of different widths and depths.

    Args:
        words: the folder of a tokenizer.
        channels: of the UNet's input.
        scheduler: what its configuration has besides.
    """
    torch.manual_seed(7)
    tokenizers = [CLIPTokenizer.from_pretrained(words, local_files_only=True) for _ in range(2)]
    tokenizers[1].pad_token = PADDED_WITH
    narrow = CLIPTextModel(_text(tokenizers[0], hidden_size=16, num_hidden_layers=3, hidden_act="quick_gelu"))
    wide = CLIPTextModelWithProjection(
        _text(tokenizers[1], hidden_size=24, num_hidden_layers=4, projection_dim=20, hidden_act="gelu")
    )
    unet = UNet2DConditionModel(
        in_channels=channels, sample_size=8, block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1, transformer_layers_per_block=(1, 1, 2), attention_head_dim=(2, 4, 4),
        cross_attention_dim=16 + 24, use_linear_projection=True, norm_num_groups=8,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
    )  # fmt: skip
    return {
        "text_encoder": _louder(narrow), "text_encoder_2": _louder(wide), "unet": _louder(unet), "vae": vae(),
        "tokenizer": tokenizers[0], "tokenizer_2": tokenizers[1],
        "scheduler": EulerDiscreteScheduler(**STABLE_DIFFUSION, **scheduler),
    }  # fmt: skip


def inpainting_parts(words: Path) -> dict[str, Any]:
    """The components of a pipeline of Stable Diffusion 1.5 for inpainting."""
    torch.manual_seed(8)
    tokenizer = CLIPTokenizer.from_pretrained(words, local_files_only=True)
    unet = UNet2DConditionModel(
        in_channels=9, sample_size=8, block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1, attention_head_dim=4, cross_attention_dim=16, norm_num_groups=8,
    )  # fmt: skip
    return {
        "text_encoder": _louder(CLIPTextModel(_text(tokenizer, hidden_size=16, num_hidden_layers=3))),
        "unet": _louder(unet), "vae": vae(), "tokenizer": tokenizer,
        "scheduler": EulerDiscreteScheduler(**STABLE_DIFFUSION, steps_offset=1), "safety_checker": None,
        "feature_extractor": None,
    }  # fmt: skip


def vae(**config: Any) -> AutoencoderKL:
    """One to which gray is something."""
    made = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4, sample_size=64,
        latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, **{"scaling_factor": 0.13025, **config},
    )  # fmt: skip
    with torch.no_grad():
        made.quant_conv.bias[:4] = torch.tensor([3.0, -2.0, 1.0, 5.0])
    return made.eval()


def saved(folder: Path, parts: dict[str, Any]) -> Path:
    """The folder, with a pipeline of these components in it."""
    kind: Any = StableDiffusionInpaintPipeline
    if "text_encoder_2" in parts:
        is_inpainting = parts["unet"].config.in_channels == INPAINTING
        kind = StableDiffusionXLInpaintPipeline if is_inpainting else StableDiffusionXLPipeline
    kind(**parts).save_pretrained(folder)
    return folder


def _text(tokenizer: Any, hidden_size: int, **config: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=hidden_size, intermediate_size=2 * hidden_size,
        num_attention_heads=4, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **config,
    )  # fmt: skip


def _louder(network: torch.nn.Module) -> Any:
    """In evaluation mode, with weights that let a text be heard."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "embedding" in name and "token" in name:
                parameter.mul_(20)
            elif parameter.dim() > 1 and ("attn2" in name or "add_embedding" in name):
                parameter.mul_(3)
    return network.eval().requires_grad_(False)
