"""What networks the tensors of a single file make, told from their names and shapes. Without torch.

The layout is that of CompVis' and Stability's code, in which checkpoints are passed around. The networks are
described as diffusers and transformers configure them.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any

from farm.weights.contents import TensorInfo

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_VOCABULARY = 49408
POSITIONS = 77
HEAD_CHANNELS = 64
"""Of an attention head, in all networks but the UNet of Stable Diffusion 1.x."""

HEADS_OF_SD1 = 8
TIME_IDS = 6
"""Numbers that tell SDXL of sizes and crops, each embedded by itself."""

Tensors = Mapping[str, TensorInfo]
Config = dict[str, Any]


class NotThisLayout(ValueError):
    """The tensors do not make such a network; the message is one clear line."""


def unet_config(tensors: Tensors, heads: int | None = None, head_channels: int | None = None) -> Config:
    """The configuration of the UNet, for `UNet2DConditionModel`.

    Args:
        tensors: of the file.
        heads: of each attention, if that is known; shapes do not tell.
        head_channels: instead: channels of each head.

    Raises:
        NotThisLayout: there is none, or it is built otherwise.
    """
    unet = Part(tensors, UNET)
    levels = _levels(unet)
    depths, widths = [depth for _, _, depth in levels], [width for width, _, _ in levels]
    middle = unet.count("middle_block.1.transformer_blocks.{}.norm1.weight")
    if depths[-1] not in (0, middle) or not middle:
        raise NotThisLayout("the middle of its UNet is built in a way that is not supported")
    names = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths]
    per_level = [*(depth or 1 for depth in depths[:-1]), middle]
    config: Config = {
        "in_channels": unet.size("input_blocks.0.0.weight", 1),
        "out_channels": unet.size("out.2.weight"),
        "block_out_channels": widths,
        "layers_per_block": levels[0][1],
        "down_block_types": names,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(names)],
        "transformer_layers_per_block": per_level if set(per_level) != {1} else 1,
        "cross_attention_dim": unet.size("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1),
        "use_linear_projection": unet.rank("middle_block.1.proj_in.weight") == 2,
    }
    return config | _heads(config, heads, head_channels)


def vae_config(tensors: Tensors, prefix: str = VAE) -> Config:
    """The configuration of the VAE, for `AutoencoderKL`, but for its scaling factor.

    Args:
        tensors: of the file.
        prefix: of their names.

    Raises:
        NotThisLayout: there is none, or it is built otherwise.
    """
    vae = Part(tensors, prefix)
    levels = vae.count("decoder.up.{}.block.0.conv1.weight")
    widths = [vae.size(f"encoder.down.{level}.block.0.conv1.weight") for level in range(levels)]
    layers = vae.count("encoder.down.0.block.{}.conv1.weight")
    if not levels or not layers:
        raise NotThisLayout("it has no VAE")
    return {
        "in_channels": vae.size("encoder.conv_in.weight", 1),
        "out_channels": vae.size("decoder.conv_out.weight"),
        "latent_channels": vae.size("decoder.conv_in.weight", 1),
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "norm_num_groups": 32,
    }


def clip_config(tensors: Tensors, prefix: str) -> Config:
    """The configuration of a text encoder with the names of transformers' CLIP, for `CLIPTextConfig`.

    Args:
        tensors: of the file.
        prefix: of their names, up to `embeddings`.

    Raises:
        NotThisLayout: there is none.
    """
    text = Part(tensors, prefix)
    width = text.size("final_layer_norm.weight")
    return _text_config(
        width=width,
        layers=text.count("encoder.layers.{}.mlp.fc1.weight"),
        hidden=text.size("encoder.layers.0.mlp.fc1.weight"),
        words=text.size("embeddings.token_embedding.weight"),
        positions=text.size("embeddings.position_embedding.weight"),
        activation="quick_gelu",
        projection=width,
    )


def open_clip_config(tensors: Tensors, prefix: str) -> Config:
    """The configuration of a text encoder with the names of OpenCLIP, all its layers counted.

    Args:
        tensors: of the file.
        prefix: of their names.

    Raises:
        NotThisLayout: there is none.
    """
    text = Part(tensors, prefix)
    return _text_config(
        width=text.size("ln_final.weight"),
        layers=text.count("transformer.resblocks.{}.mlp.c_fc.weight"),
        hidden=text.size("transformer.resblocks.0.mlp.c_fc.weight"),
        words=text.size("token_embedding.weight"),
        positions=text.size("positional_embedding"),
        activation="gelu",
        projection=text.size("text_projection", 1),
    )


def added_embedding(tensors: Tensors, pooled: int) -> Config:
    """What the UNet's configuration says of SDXL's sizes and pooled texts.

    Args:
        tensors: of the file.
        pooled: width of the pooled text.

    Raises:
        NotThisLayout: it takes nothing of the kind.
    """
    width = Part(tensors, UNET).size("label_emb.0.0.weight", 1)
    if width <= pooled or (width - pooled) % TIME_IDS:
        raise NotThisLayout(f"its UNet takes {width} numbers beside the text, not those of SDXL")
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (width - pooled) // TIME_IDS,
        "projection_class_embeddings_input_dim": width,
    }


class Part:
    """The tensors of a network, by their names behind its prefix."""

    def __init__(self, tensors: Tensors, prefix: str) -> None:
        self._tensors = tensors
        self._prefix = prefix

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._tensors

    def rank(self, name: str) -> int:
        """How many dimensions a tensor has."""
        return len(self._shape(name))

    def size(self, name: str, axis: int = 0) -> int:
        """Of a tensor along one of its axes."""
        shape = self._shape(name)
        if axis >= len(shape):
            raise NotThisLayout(f"its tensor {self._prefix}{name} has the shape {list(shape)}")
        return shape[axis]

    def _shape(self, name: str) -> tuple[int, ...]:
        whole = self._prefix + name
        if whole not in self._tensors:
            raise NotThisLayout(f"it has no tensor {whole}")
        return self._tensors[whole].shape

    def count(self, name: str) -> int:
        """How many tensors there are, with 0, 1, 2 and so on in their names."""
        return next(number for number in count() if name.format(number) not in self)


def _levels(unet: Part) -> list[tuple[int, int, int]]:
    """Of the encoder: width, layers, and blocks of a transformer in each layer."""
    levels: list[list[tuple[int, int]]] = [[]]
    for number in count(1):
        block = f"input_blocks.{number}"
        if f"{block}.0.op.weight" in unet:
            levels.append([])
        elif f"{block}.0.out_layers.3.weight" in unet:
            depth = unet.count(block + ".1.transformer_blocks.{}.norm1.weight")
            levels[-1].append((unet.size(f"{block}.0.out_layers.3.weight"), depth))
        else:
            break
    counts = {len(level) for level in levels}
    if len(counts) > 1 or 0 in counts or any(len(set(level)) > 1 for level in levels):
        raise NotThisLayout("its UNet is built in a way that is not supported")
    return [(level[0][0], len(level), level[0][1]) for level in levels]


def _heads(config: Config, heads: int | None, head_channels: int | None) -> Config:
    """diffusers calls it `attention_head_dim`, which there is the number of heads."""
    if head_channels is None and (heads is not None or not config["use_linear_projection"]):
        return {"attention_head_dim": heads or HEADS_OF_SD1}
    channels = head_channels or HEAD_CHANNELS
    return {"attention_head_dim": [max(1, width // channels) for width in config["block_out_channels"]]}


def _text_config(
    width: int, layers: int, hidden: int, words: int, positions: int, activation: str, projection: int
) -> Config:
    if (words, positions) != (CLIP_VOCABULARY, POSITIONS):
        raise NotThisLayout(
            f"its text encoder knows {words} tokens at {positions} positions, not CLIP's "
            f"{CLIP_VOCABULARY} at {POSITIONS}"
        )
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": hidden,
        "num_attention_heads": max(1, width // HEAD_CHANNELS),
        "hidden_act": activation,
        "projection_dim": projection,
        "vocab_size": words,
        "max_position_embeddings": positions,
        "bos_token_id": CLIP_VOCABULARY - 2,
        "eos_token_id": CLIP_VOCABULARY - 1,
    }
