"""Files of LoRA as other programs write them, and the networks that they are for."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

SDXL: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
}
TINY: dict[str, Any] = {
    "block_out_channels": (8, 16, 16),
    "transformer_layers_per_block": (1, 2, 2),
    "attention_head_dim": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 24,
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 40,
}


@cache
def tiny_sdxl() -> tuple[UNet2DConditionModel, CLIPTextModel, CLIPTextModelWithProjection]:
    """Networks that are to each other as SDXL's, with random weights."""
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 99, "bos_token_id": 97,
             "eos_token_id": 98, "pad_token_id": 0}  # fmt: skip
    first = CLIPTextModel(CLIPTextConfig(hidden_size=8, intermediate_size=16, **shape))
    other = CLIPTextConfig(hidden_size=16, intermediate_size=32, projection_dim=16, **shape)
    networks = (UNet2DConditionModel(**SDXL, **TINY), first, CLIPTextModelWithProjection(other))
    return tuple(network.eval().requires_grad_(False) for network in networks)


@cache
def tiny_unet() -> UNet2DConditionModel:
    """One with each kind of layer, and few of them."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, attention_head_dim=2, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=24,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return network.eval().requires_grad_(False)


def weighted(network: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """All layers that a LoRA can be for."""
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            yield path, module


def attends(path: str) -> bool:
    """Whether a layer is in a UNet's or a text encoder's attention, or beside it."""
    return "attentions" in path or "encoder.layers" in path


def factors(
    network: nn.Module, rank: int, seed: int, chosen: Callable[[str], bool] = attends
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Of each layer the random factors of what is added, down and up, large enough to be seen."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for path, module in weighted(network):
        if chosen(path):
            outputs, inputs, *kernel = module.weight.shape
            down = torch.randn(rank, inputs, *kernel, generator=generator) / module.weight[0].numel() ** 0.5
            up = torch.randn(outputs, rank, *[1] * len(kernel), generator=generator) * 0.3 / rank**0.5
            found[path] = down, up
    return found


def kohya(
    layers: dict[str, tuple[torch.Tensor, torch.Tensor]], prefix: str, alpha: float | None = None
) -> dict[str, torch.Tensor]:
    """As kohya's trainers write them, with their names of modules."""
    tensors = {}
    for path, (down, up) in layers.items():
        name = prefix + path.replace(".", "_")
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def product(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """What is added to the weight."""
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])
