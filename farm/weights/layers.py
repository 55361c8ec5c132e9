"""The layers of a network that adapters can be added to, and the names that files give them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from torch import nn

_FUSED = {"to_qkv": ("to_q", "to_k", "to_v"), "to_kv": ("to_k", "to_v")}
"""Of diffusers' attention, what is projected together, each as wide as the others."""

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
"""The layers of a block, as diffusers and as the original layout call them."""

_ENDS = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip


Computed = nn.Linear | nn.Conv2d | nn.LayerNorm | nn.GroupNorm


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer with a weight.

    Attributes:
        module: that computes it.
        shape: of its weight: `(outputs, inputs)` of a linear layer, `(outputs, inputs, height, width)` of a
            convolution, `(channels,)` of a normalization.
        outputs: of the module's, those that are the layer's; None if all are.
    """

    module: Computed
    shape: tuple[int, ...]
    outputs: slice | None = None


def layers_of(network: nn.Module) -> dict[str, Layer]:
    """All layers by their paths; those of projections that were fused by the paths that they had before."""
    found: dict[str, Layer] = {}
    for path, module in network.named_modules():
        parent, _, name = path.rpartition(".")
        if isinstance(module, nn.Linear) and name in _FUSED:
            names = _FUSED[name]
            width, inputs = module.out_features // len(names), module.in_features
            for number, each in enumerate(names):
                outputs = slice(number * width, (number + 1) * width)
                found[f"{parent}.{each}"] = Layer(module, (width, inputs), outputs)
        elif _is_computed(module):
            found[path] = Layer(module, tuple(module.weight.shape))
    return found


def _is_computed(module: nn.Module) -> TypeGuard[Computed]:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and not isinstance(module.padding, str)
    has_weight = getattr(module, "weight", None) is not None
    return has_weight and isinstance(module, nn.Linear | nn.LayerNorm | nn.GroupNorm)


def names_of(network: nn.Module, paths: Iterable[str]) -> dict[str, str]:
    """Whatever files call layers, with `_` for each dot, and their paths.

    Files name the layers of UNets as diffusers does or in the original layout, and those of text encoders
    as transformers does, of some versions with `text_model.` before them.

    Args:
        network: a `UNet2DConditionModel` or a text encoder.
        paths: of its layers.
    """
    paths = tuple(paths)
    found = {path: path for path in paths}
    if hasattr(network, "down_blocks"):
        found |= {name: path for path, name in original_names(network, paths)}
    else:
        bare = {path.removeprefix("text_model."): path for path in paths}
        found |= bare | {f"text_model.{name}": path for name, path in bare.items()}
    return {name.replace(".", "_"): path for name, path in found.items()}


def original_names(unet: Any, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Paths of a UNet's layers, and what CompVis's and Stability's repositories call them."""
    blocks = _ENDS | dict(_original_blocks(unet))
    for path in paths:
        head, tail = path, ""
        while head not in blocks and head:
            head, _, name = head.rpartition(".")
            tail = f"{name}.{tail}" if tail else name
        if head:
            yield path, ".".join(filter(None, (blocks[head], _RESNET.get(tail, tail))))


def _original_blocks(unet: Any) -> Iterator[tuple[str, str]]:
    """There each resnet begins a block of its own, and so does what makes the encoder's pictures smaller."""
    number = 1
    for path, block in _numbered("down_blocks", unet):
        for place in range(len(block.resnets)):
            yield f"{path}.resnets.{place}", f"input_blocks.{number}.0"
            yield f"{path}.attentions.{place}", f"input_blocks.{number}.1"
            number += 1
        if block.downsamplers is not None:
            yield f"{path}.downsamplers.0.conv", f"input_blocks.{number}.0.op"
            number += 1
    yield from (
        ("mid_block.resnets.0", "middle_block.0"),
        ("mid_block.attentions.0", "middle_block.1"),
        ("mid_block.resnets.1", "middle_block.2"),
    )
    number = 0
    for path, block in _numbered("up_blocks", unet):
        for place in range(len(block.resnets)):
            yield f"{path}.resnets.{place}", f"output_blocks.{number}.0"
            yield f"{path}.attentions.{place}", f"output_blocks.{number}.1"
            number += 1
        behind = 2 if getattr(block, "attentions", None) else 1
        yield f"{path}.upsamplers.0.conv", f"output_blocks.{number - 1}.{behind}.conv"


def _numbered(name: str, unet: Any) -> Iterator[tuple[str, Any]]:
    for number, block in enumerate(getattr(unet, name)):
        yield f"{name}.{number}", block


def path_in(names: Mapping[str, str], name: str) -> str | None:
    """The path of the layer that a file calls so, with dots or `_`; None if there is none."""
    return names.get(name.replace(".", "_"))
