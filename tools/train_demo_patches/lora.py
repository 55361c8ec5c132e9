"""A LoRA of the UNet: thin matrices beside those of its transformer blocks, in kohya's format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from farm.render.adapters import adapted
from farm.weights.checkpoint import Networks
from farm.weights.deltas import LowRank, convolution_of
from farm.weights.layers import layers_of
from tools.train_demo_model.training import Draw, Plan, Training
from tools.train_demo_model.unet import Denoising

from .examples import Examples

PREFIX = "lora_unet_"
BLOCKS = "attentions"
"""In the paths of the layers that get one: attention, feed-forward, and what leads in and out."""


class Lora(nn.Module):
    """Its matrices, by kohya's names of layers; those that lead up begin as zeros: nothing changes."""

    def __init__(self, unet: nn.Module, rank: int, alpha: float, seed: int) -> None:
        super().__init__()
        self.rank, self.alpha = rank, alpha
        self.layers = {path: layer for path, layer in layers_of(unet).items() if _gets_one(path, layer.shape)}
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        generator = torch.Generator().manual_seed(seed)
        for path, layer in self.layers.items():
            outputs, inputs, *kernel = layer.shape
            down = torch.randn(rank, inputs, *kernel, generator=generator) / inputs**0.5
            self.down[_name(path)] = nn.Parameter(down)
            self.up[_name(path)] = nn.Parameter(torch.zeros(outputs, rank, *[1] * len(kernel)))

    def deltas(self) -> dict[str, LowRank]:
        """What is added to each layer, by its path."""
        scale = self.alpha / self.rank
        return {
            path: LowRank(self.down[_name(path)], self.up[_name(path)] * scale, convolution_of(layer.module))
            for path, layer in self.layers.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """As they stand in the file, in half precision."""
        found: dict[str, Tensor] = {}
        for path in self.layers:
            name = _name(path)
            found[f"{name}.lora_down.weight"] = self.down[name].detach().half()
            found[f"{name}.lora_up.weight"] = self.up[name].detach().half()
            found[f"{name}.alpha"] = torch.tensor(self.alpha).half()
        return found


def _gets_one(path: str, shape: tuple[int, ...]) -> bool:
    return BLOCKS in path and len(shape) > 1


def _name(path: str) -> str:
    return PREFIX + path.replace(".", "_")


def train_lora(
    folder: Path, networks: Networks, examples: Examples, rank: int, plan: Plan, name: str
) -> Lora:
    """Train one on pictures in a style, whatever their captions say."""
    lora = Lora(networks.unet, rank, rank / 2, plan.seed)
    training = Training(name, folder, lora, plan)
    denoising, ones = Denoising(networks.unet), torch.ones(plan.batch)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        clean, context = examples.batch(plan.batch, draw)
        with adapted(lora.layers, [(lora.deltas(), ones)]):
            return denoising(clean, context, draw)

    training.run(loss)
    return lora


def save_lora(lora: Lora, path: Path, about: dict[str, Any]) -> None:
    """Write its file at once; readers find what it is for in the metadata.

    Args:
        lora: trained.
        path: of the file.
        about: of kohya's `ss_…` and the model specification's `modelspec.…`, beside what the LoRA knows.
    """
    known = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": lora.rank,
        "ss_network_alpha": lora.alpha,
    }
    fresh = path.with_suffix(".tmp")
    metadata = {key: str(value) for key, value in sorted({**known, **about}.items())}
    save_file(lora.tensors(), fresh, metadata)
    fresh.chmod(0o644)
    os.replace(fresh, path)
