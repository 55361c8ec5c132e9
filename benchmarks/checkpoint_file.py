"""A checkpoint of Stable Diffusion 1.x with random weights, in the original layout, of any size.

Names and shapes follow CompVis' code. The file is written tensor by tensor, so that it needs no memory.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig

from farm.weights.tokenizer import CLIP, load_tokenizer

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]

FP16_BYTES = 2
WORDS, POSITIONS = 49408, 77

RANDOM_NUMBERS = 10**6
"""That are repeated."""

ATTENTION, RESNETS = "CrossAttn{}Block2D", "{}Block2D"


@dataclass(frozen=True, slots=True)
class Size:
    """How large its networks are.

    Attributes:
        unet: channels of each level; all but the last attend to the text.
        vae: channels of each level.
        text: width of the text encoder.
        layers: of the text encoder.
    """

    unet: Shape
    vae: Shape
    text: int
    layers: int


SIZES = {
    "sd15": Size((320, 640, 1280, 1280), (128, 256, 512, 512), 768, 12),
    "tiny": Size((32, 64), (32, 32, 32, 32), 64, 2),
}


def write_checkpoint(path: Path, size: Size) -> None:
    """Writes a file of safetensors in fp16."""
    shapes = dict(tensors(size))
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + FP16_BYTES * prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = (0.02 * np.random.default_rng(0).standard_normal(RANDOM_NUMBERS)).astype(np.float16)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            file.write(np.resize(numbers, prod(shape)).tobytes())


def write_configuration(folder: Path, size: Size) -> None:
    """Writes a folder of diffusers without weights, of the same networks."""
    attends = [ATTENTION] * (len(size.unet) - 1)
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(
            block_out_channels=size.unet,
            down_block_types=tuple(name.format("Down") for name in (*attends, RESNETS)),
            up_block_types=tuple(name.format("Up") for name in (RESNETS, *attends)),
            cross_attention_dim=size.text,
        )
        vae: Any = AutoencoderKL(
            block_out_channels=size.vae,
            down_block_types=("DownEncoderBlock2D",) * len(size.vae),
            up_block_types=("UpDecoderBlock2D",) * len(size.vae),
            layers_per_block=2,
        )
    scheduler: Any = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False
    )
    for name, part in (("unet", unet), ("vae", vae), ("scheduler", scheduler)):
        part.save_config(folder / name)
    CLIPTextConfig(
        hidden_size=size.text,
        intermediate_size=4 * size.text,
        num_hidden_layers=size.layers,
        num_attention_heads=size.text // 64,
        projection_dim=size.text,
    ).save_pretrained(folder / "text_encoder")
    load_tokenizer(CLIP).save_pretrained(folder / "tokenizer")
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.40.0", **parts}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def tensors(size: Size) -> Named:
    """The names and shapes of all."""
    for part, found in (
        ("model.diffusion_model", _unet(size)),
        ("first_stage_model", _vae(size)),
        ("cond_stage_model.transformer.text_model", _text(size)),
    ):
        for name, shape in found:
            yield f"{part}.{name}", shape


def _affine(name: str, *shape: int) -> Named:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _unet(size: Size) -> Named:
    first, last, time = size.unet[0], len(size.unet) - 1, 4 * size.unet[0]
    yield from _affine("time_embed.0", time, first)
    yield from _affine("time_embed.2", time, time)
    yield from _affine("input_blocks.0.0", first, 4, 3, 3)
    number, width, skipped = 1, first, [first]
    for level, channels in enumerate(size.unet):
        for _ in range(2):
            yield from _resnet(f"input_blocks.{number}.0", width, channels, time)
            if level < last:
                yield from _transformer(f"input_blocks.{number}.1", channels, size.text)
            number, width = number + 1, channels
            skipped.append(width)
        if level < last:
            yield from _affine(f"input_blocks.{number}.0.op", width, width, 3, 3)
            number += 1
            skipped.append(width)
    yield from _resnet("middle_block.0", width, width, time)
    yield from _transformer("middle_block.1", width, size.text)
    yield from _resnet("middle_block.2", width, width, time)
    number = 0
    for level, channels in reversed(list(enumerate(size.unet))):
        for layer in range(3):
            yield from _resnet(f"output_blocks.{number}.0", width + skipped.pop(), channels, time)
            if level < last:
                yield from _transformer(f"output_blocks.{number}.1", channels, size.text)
            if layer == 2 and level:
                place = 2 if level < last else 1
                yield from _affine(f"output_blocks.{number}.{place}.conv", channels, channels, 3, 3)
            number, width = number + 1, channels
    yield from _affine("out.0", first)
    yield from _affine("out.2", 4, first, 3, 3)


def _resnet(name: str, before: int, after: int, time: int) -> Named:
    yield from _affine(f"{name}.in_layers.0", before)
    yield from _affine(f"{name}.in_layers.2", after, before, 3, 3)
    yield from _affine(f"{name}.emb_layers.1", after, time)
    yield from _affine(f"{name}.out_layers.0", after)
    yield from _affine(f"{name}.out_layers.3", after, after, 3, 3)
    if before != after:
        yield from _affine(f"{name}.skip_connection", after, before, 1, 1)


def _transformer(name: str, width: int, text: int) -> Named:
    yield from _affine(f"{name}.norm", width)
    yield from _affine(f"{name}.proj_in", width, width, 1, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, context in (("attn1", width), ("attn2", text)):
        yield f"{block}.{attention}.to_q.weight", (width, width)
        yield f"{block}.{attention}.to_k.weight", (width, context)
        yield f"{block}.{attention}.to_v.weight", (width, context)
        yield from _affine(f"{block}.{attention}.to_out.0", width, width)
    yield from _affine(f"{block}.ff.net.0.proj", 8 * width, width)
    yield from _affine(f"{block}.ff.net.2", width, 4 * width)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _affine(f"{block}.{norm}", width)
    yield from _affine(f"{name}.proj_out", width, width, 1, 1)


def _vae(size: Size) -> Named:
    yield from _affine("quant_conv", 8, 8, 1, 1)
    yield from _affine("post_quant_conv", 4, 4, 1, 1)
    first, *_, last = size.vae
    for side, outside, inside, ends in (("encoder", 3, first, (last, 8)), ("decoder", 4, last, (first, 3))):
        yield from _affine(f"{side}.conv_in", inside, outside, 3, 3)
        yield from _vae_middle(f"{side}.mid", last)
        yield from _affine(f"{side}.norm_out", ends[0])
        yield from _affine(f"{side}.conv_out", ends[1], ends[0], 3, 3)
    before = (first, *size.vae), (*size.vae[1:], last)
    for level, channels in enumerate(size.vae):
        yield from _vae_level(f"encoder.down.{level}", before[0][level], channels, 2)
        if level < len(size.vae) - 1:
            yield from _affine(f"encoder.down.{level}.downsample.conv", channels, channels, 3, 3)
        yield from _vae_level(f"decoder.up.{level}", before[1][level], channels, 3)
        if level:
            yield from _affine(f"decoder.up.{level}.upsample.conv", channels, channels, 3, 3)


def _vae_level(name: str, before: int, after: int, layers: int) -> Named:
    for layer in range(layers):
        yield from _vae_resnet(f"{name}.block.{layer}", after if layer else before, after)


def _vae_middle(name: str, width: int) -> Named:
    yield from _vae_resnet(f"{name}.block_1", width, width)
    yield from _affine(f"{name}.attn_1.norm", width)
    for layer in ("q", "k", "v", "proj_out"):
        yield from _affine(f"{name}.attn_1.{layer}", width, width, 1, 1)
    yield from _vae_resnet(f"{name}.block_2", width, width)


def _vae_resnet(name: str, before: int, after: int) -> Named:
    yield from _affine(f"{name}.norm1", before)
    yield from _affine(f"{name}.conv1", after, before, 3, 3)
    yield from _affine(f"{name}.norm2", after)
    yield from _affine(f"{name}.conv2", after, after, 3, 3)
    if before != after:
        yield from _affine(f"{name}.nin_shortcut", after, before, 1, 1)


def _text(size: Size) -> Named:
    width = size.text
    yield "embeddings.token_embedding.weight", (WORDS, width)
    yield "embeddings.position_embedding.weight", (POSITIONS, width)
    for layer in range(size.layers):
        block = f"encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _affine(f"{block}.self_attn.{name}", width, width)
        yield from _affine(f"{block}.mlp.fc1", 4 * width, width)
        yield from _affine(f"{block}.mlp.fc2", width, 4 * width)
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _affine(f"{block}.{norm}", width)
    yield from _affine("final_layer_norm", width)
