"""A hypernetwork: small networks before the keys and values of attention, as A1111 writes them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from farm.render.hypernetworks import Applied, hypernetworks_applied
from farm.weights.checkpoint import Networks
from farm.weights.hypernetwork import Hypernetwork
from tools.train_demo_model.training import Draw, Plan, Training, write_atomically
from tools.train_demo_model.unet import Denoising

from .examples import Examples

STRUCTURE = (1, 0.5, 1)
ACTIVATION = "swish"
FIRST_SIZE = 0.01
"""Standard deviation of its first weights, as A1111's `Normal`: nearly nothing changes."""


class Pair(nn.Module):
    """The networks of one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.keys, self.values = _network(width), _network(width)


def _network(width: int) -> nn.Sequential:
    between = int(width * STRUCTURE[1])
    network = nn.Sequential(nn.Linear(width, between), nn.Hardswish(), nn.Linear(between, width))
    for name, parameter in network.named_parameters():
        nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, std=FIRST_SIZE)
    return network


class HypernetworkTraining(nn.Module):
    """The networks of all widths, by the width as a text."""

    def __init__(self, widths: tuple[int, ...], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.pairs = nn.ModuleDict({str(width): Pair(width) for width in widths})

    def hypernetwork(self, name: str) -> Hypernetwork:
        """As the renderer uses it; the networks are these."""
        pairs = {int(width): pair for width, pair in self.pairs.items() if isinstance(pair, Pair)}
        return Hypernetwork(name, {width: (pair.keys, pair.values) for width, pair in pairs.items()})


def train_hypernetwork(
    folder: Path,
    networks: Networks,
    examples: Examples,
    widths: tuple[int, ...],
    plan: Plan,
    name: str,
) -> HypernetworkTraining:
    """Train one on pictures in a style, whatever their captions say.

    Args:
        folder: for what is unfinished.
        networks: of the model.
        examples: to train on.
        widths: of what attention looks at: a text, or the picture itself.
        plan: how long.
        name: of the training.
    """
    module = HypernetworkTraining(widths, plan.seed)
    training = Training(name, folder, module, plan)
    denoising = Denoising(networks.unet)
    applied = [Applied(module.hypernetwork(name), torch.ones(plan.batch))]

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        clean, context = examples.batch(plan.batch, draw)
        with hypernetworks_applied(networks.unet, applied):
            return denoising(clean, context, draw)

    training.run(loss)
    return module


def save_hypernetwork(module: HypernetworkTraining, path: Path, name: str, model: str, steps: int) -> None:
    """Write its file at once, in half precision."""
    write_atomically(
        {
            **{
                width: tuple(_state(network) for network in pair)
                for width, pair in module.hypernetwork(name).networks.items()
            },
            "name": name,
            "step": steps,
            "layer_structure": list(STRUCTURE),
            "activation_func": ACTIVATION,
            "is_layer_norm": False,
            "activate_output": False,
            "weight_initialization": "Normal",
            "use_dropout": False,
            "last_layer_dropout": False,
            "sd_checkpoint_name": model,
        },
        path,
    )


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {f"linear.{name}": tensor.half() for name, tensor in network.state_dict().items()}
