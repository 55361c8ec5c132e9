"""Small checkpoints with random weights, as diffusers makes them and as single files in the original layout.

The names are written down here from the other side: what each module of diffusers is called in CompVis' and
Stability's code, and not by turning a converter around.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Tiny:
    """The networks of a checkpoint as diffusers and transformers have them."""

    family: str
    unet: Any
    vae: Any
    text_encoders: tuple[Any, ...]
    unused_layer: Mapping[str, torch.Tensor] = field(default_factory=dict)


def tiny(family: str, in_channels: int = 4) -> Tiny:
    """Networks of a family with few channels; their weights are random, and always the same."""
    torch.manual_seed(sum(map(ord, family)) + in_channels)
    width = {"sd1": 64, "sd2": 128, "sdxl": 192}[family]
    linear = family != "sd1"
    heads = 8 if family == "sd1" else [1, 2]
    channels = (32, 64) if family == "sd1" else (64, 128)
    added: dict[str, Any] = {}
    if family == "sdxl":
        added = {
            "addition_embed_type": "text_time", "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 128 + 6 * 32, "transformer_layers_per_block": [1, 2],
        }  # fmt: skip
    down, up = ("CrossAttnDownBlock2D",) * 2, ("CrossAttnUpBlock2D",) * 2
    if family != "sdxl":
        down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    unet = UNet2DConditionModel(
        in_channels=in_channels, block_out_channels=channels, layers_per_block=1, cross_attention_dim=width,
        down_block_types=down, up_block_types=up, attention_head_dim=heads, use_linear_projection=linear,
        **added,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64), layers_per_block=1, latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        scaling_factor=0.13025 if family == "sdxl" else 0.18215,
    )  # fmt: skip
    if family == "sd1":
        encoders: tuple[Any, ...] = (_text(64, 3, "quick_gelu"),)
    elif family == "sd2":
        encoders = (_text(128, 3, "gelu"),)
    else:
        encoders = (_text(64, 3, "quick_gelu"), _text(128, 3, "gelu", CLIPTextModelWithProjection))
    extra = _text(128, 1, "gelu").state_dict() if family == "sd2" else {}
    networks = [network.eval().requires_grad_(False) for network in (unet, vae, *encoders)]
    return Tiny(family, networks[0], networks[1], tuple(networks[2:]), extra)


def _text(width: int, layers: int, activation: str, kind: Any = CLIPTextModel) -> Any:
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, hidden_act=activation,
        num_attention_heads=width // 64, vocab_size=49408, projection_dim=width, bos_token_id=49406,
        eos_token_id=49407,
    )  # fmt: skip
    return kind(config)


def original(made: Tiny, dtype: torch.dtype = torch.float32) -> State:
    """The state dict of a single file."""
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in original_unet(made.unet)}
    state |= {f"first_stage_model.{name}": tensor for name, tensor in original_vae(made.vae).items()}
    first, *others = made.text_encoders
    if made.family == "sd1":
        state |= _clip(first, "cond_stage_model.transformer.text_model.")
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    elif made.family == "sd2":
        state |= _open_clip(first, "cond_stage_model.model.")
        state |= _block(made.unused_layer, 0, "cond_stage_model.model.transformer.resblocks.3.")
    else:
        state |= _clip(first, "conditioner.embedders.0.transformer.text_model.")
        state |= _open_clip(others[0].text_model, "conditioner.embedders.1.model.")
        state["conditioner.embedders.1.model.text_projection"] = others[0].text_projection.weight.T
    return {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().clone()
        for name, tensor in state.items()
    }


def write(made: Tiny, path: Path, dtype: torch.dtype = torch.float32, **metadata: str) -> Path:
    """A single file: safetensors, or as Lightning writes it with `torch.save`, by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = original(made, dtype)
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={"format": "pt", **metadata})
    else:
        torch.save({"state_dict": state, "global_step": 840000, "epoch": 3}, path)
    return path


Named = Iterator[tuple[str, torch.Tensor]]

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def _below(module: Any, prefix: str, rename: Callable[[str], str] = str) -> Named:
    for name, tensor in module.state_dict().items():
        yield prefix + rename(name), tensor


def _resnet(name: str) -> str:
    layer, _, rest = name.partition(".")
    return f"{RESNET[layer]}.{rest}"


def original_unet(unet: Any) -> Named:
    """The tensors of a UNet, by their names behind those of the file's part."""
    yield from _below(unet.conv_in, "input_blocks.0.0.")
    for number, target in (("linear_1", "0"), ("linear_2", "2")):
        yield from _below(getattr(unet.time_embedding, number), f"time_embed.{target}.")
        if hasattr(unet, "add_embedding"):
            yield from _below(getattr(unet.add_embedding, number), f"label_emb.0.{target}.")
    place = 1
    for block in unet.down_blocks:
        for index, resnet in enumerate(block.resnets):
            yield from _below(resnet, f"input_blocks.{place}.0.", _resnet)
            if getattr(block, "attentions", None):
                yield from _below(block.attentions[index], f"input_blocks.{place}.1.")
            place += 1
        if block.downsamplers:
            yield from _below(block.downsamplers[0].conv, f"input_blocks.{place}.0.op.")
            place += 1
    yield from _below(unet.mid_block.resnets[0], "middle_block.0.", _resnet)
    yield from _below(unet.mid_block.attentions[0], "middle_block.1.")
    yield from _below(unet.mid_block.resnets[1], "middle_block.2.", _resnet)
    place = 0
    for block in unet.up_blocks:
        attentions = getattr(block, "attentions", None)
        for index, resnet in enumerate(block.resnets):
            yield from _below(resnet, f"output_blocks.{place}.0.", _resnet)
            if attentions:
                yield from _below(attentions[index], f"output_blocks.{place}.1.")
            is_last = index == len(block.resnets) - 1
            if is_last and block.upsamplers:
                position = 2 if attentions else 1
                yield from _below(block.upsamplers[0].conv, f"output_blocks.{place}.{position}.conv.")
            place += 1
    yield from _below(unet.conv_norm_out, "out.0.")
    yield from _below(unet.conv_out, "out.2.")


ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def original_vae(vae: Any) -> State:
    """The state dict of a VAE in its own file."""
    state = dict(_below(vae.quant_conv, "quant_conv.")) | dict(
        _below(vae.post_quant_conv, "post_quant_conv.")
    )
    for side, blocks in (("encoder", vae.encoder.down_blocks), ("decoder", vae.decoder.up_blocks)):
        coder = getattr(vae, side)
        state |= dict(_below(coder.conv_in, f"{side}.conv_in.")) | dict(
            _below(coder.conv_out, f"{side}.conv_out.")
        )
        state |= dict(_below(coder.conv_norm_out, f"{side}.norm_out."))
        for index, block in enumerate(blocks):
            way, level = ("down", index) if side == "encoder" else ("up", len(blocks) - 1 - index)
            for number, resnet in enumerate(block.resnets):
                state |= _below_vae(resnet, f"{side}.{way}.{level}.block.{number}.")
            sampler, name = (
                (block.downsamplers, "downsample") if side == "encoder" else (block.upsamplers, "upsample")
            )
            if sampler:
                state |= _below(sampler[0].conv, f"{side}.{way}.{level}.{name}.conv.")
        for number in (0, 1):
            state |= _below_vae(coder.mid_block.resnets[number], f"{side}.mid.block_{number + 1}.")
        attention = coder.mid_block.attentions[0].state_dict()
        for layer, old in ATTENTION.items():
            weight, bias = attention[f"{layer}.weight"], attention[f"{layer}.bias"]
            is_norm = layer == "group_norm"
            state[f"{side}.mid.attn_1.{old}.weight"] = weight if is_norm else weight[:, :, None, None]
            state[f"{side}.mid.attn_1.{old}.bias"] = bias
    return {name: tensor.contiguous().clone() for name, tensor in state.items()}


def _below_vae(resnet: Any, prefix: str) -> State:
    return {name.replace("conv_shortcut", "nin_shortcut"): tensor for name, tensor in _below(resnet, prefix)}


def _clip(encoder: Any, prefix: str) -> State:
    return dict(_below(encoder, prefix))


def _open_clip(encoder: Any, prefix: str) -> State:
    own = encoder.state_dict()
    state = {
        f"{prefix}token_embedding.weight": own["embeddings.token_embedding.weight"],
        f"{prefix}positional_embedding": own["embeddings.position_embedding.weight"],
        f"{prefix}ln_final.weight": own["final_layer_norm.weight"],
        f"{prefix}ln_final.bias": own["final_layer_norm.bias"],
        f"{prefix}text_projection": torch.randn(128, 128),
        f"{prefix}logit_scale": torch.tensor(4.6),
    }
    for layer in range(len(encoder.encoder.layers)):
        state |= _block(own, layer, f"{prefix}transformer.resblocks.{layer}.")
    return state


OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def _block(own: Mapping[str, torch.Tensor], layer: int, prefix: str) -> State:
    here = f"encoder.layers.{layer}."
    state = {
        f"{prefix}{new}.{part}": own[f"{here}{old}.{part}"]
        for old, new in OPEN_CLIP.items()
        for part in ("weight", "bias")
    }
    for part in ("weight", "bias"):
        parts = [own[f"{here}self_attn.{one}_proj.{part}"] for one in "qkv"]
        state[f"{prefix}attn.in_proj_{part}"] = torch.cat(parts)
    return state
