"""Hypernetworks: small networks that change what a UNet's attention makes keys and values of.

The format is A1111's (modules/hypernetworks/hypernetwork.py). A file has, by the width of the context that
attention looks at, a network for keys and one for values: 768 or 1024 for a text, 320, 640 and 1280 for the
picture's own features, since attention of a picture to itself is meant as well.
"""

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from farm.errors import quoted
from farm.weights.tensor_info import BadFile

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "elu": nn.ELU,
    "swish": nn.Hardswish,  # as in A1111
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "hardshrink": nn.Hardshrink,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "logsigmoid": nn.LogSigmoid,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
    "relu6": nn.ReLU6,
    "rrelu": nn.RReLU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "softshrink": nn.Softshrink,
    "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
}
"""By A1111's names, which are those of torch.nn in small letters. Left out are those that make no network of
this kind (glu, multiheadattention, threshold), and softmax, softmax2d, softmin and logsoftmax: there they sum
over the pictures of a batch."""

USUAL_STRUCTURE = (1, 2, 1)
"""Of the layers, as multiples of the width, in files that do not say."""

_OLD_NAMES = {"linear1": "linear.0", "linear2": "linear.1"}
_PARAMETER = re.compile(r"linear\.(\d+)\.(weight|bias)")


@dataclass(frozen=True, slots=True, eq=False)
class Hypernetwork:
    """Networks by the width of what they change.

    Attributes:
        name: as prompts and jobs write it.
        networks: those of keys and of values; what they answer is added to what they are given.
        title: that its file gives it; empty if it gives none.
        step: of its training; None if its file does not say.
        base_model: that it was trained on; empty if its file does not say.
    """

    name: str
    networks: Mapping[int, tuple[nn.Module, nn.Module]]
    title: str = ""
    step: int | None = None
    base_model: str = ""

    def to(self, device: torch.device, dtype: torch.dtype) -> "Hypernetwork":
        """A copy, as a UNet there can use it."""

        def moved(network: nn.Module) -> nn.Module:
            return copy.deepcopy(network).to(device, dtype)

        networks = {width: (moved(keys), moved(values)) for width, (keys, values) in self.networks.items()}
        return replace(self, networks=networks)

    @property
    def size(self) -> int:
        """In bytes."""
        networks = [network for pair in self.networks.values() for network in pair]
        return sum(one.numel() * one.element_size() for network in networks for one in network.parameters())


def read_hypernetwork(tree: Any, name: str) -> Hypernetwork:
    """A hypernetwork from what its file holds, in float32, on the host.

    Dropout, which does something in training alone, is left out.

    Args:
        tree: of the file: mappings, tensors and plain values.
        name: as prompts and jobs write it; in messages, too.

    Raises:
        BadFile: it is none, or torn.
    """
    keys_of_tree = tree if isinstance(tree, Mapping) else ()
    widths = [width for width in keys_of_tree if type(width) is int and width > 0]
    if not widths:
        raise _bad(name, "is none: it has no networks by the width of what they change")
    layers = _layers(tree, name)
    networks = {}
    for width in widths:
        states = tree[width]
        if not isinstance(states, Sequence) or len(states) != 2:
            raise _bad(name, f"has no pair of networks, for keys and values, at {width}")
        keys, values = (_network(width, state, layers, name) for state in states)
        networks[width] = keys, values
    title, step, model = (tree.get(part) for part in ("name", "step", "sd_checkpoint_name"))
    return Hypernetwork(
        name,
        networks,
        title if isinstance(title, str) else "",
        step if isinstance(step, int) else None,
        model if isinstance(model, str) else "",
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    """A step of all networks of a file.

    Attributes:
        before: its width, as a multiple of the context's.
        after: the next one's.
        activation: makes what follows it; None if nothing does.
        is_normal: whether layer normalization follows that.
    """

    before: float
    after: float
    activation: Callable[[], nn.Module] | None
    is_normal: bool


def _layers(tree: Mapping[Any, Any], name: str) -> list[_Layer]:
    structure = tree.get("layer_structure") or USUAL_STRUCTURE
    if not _is_structure(structure):
        raise _bad(name, f"has layers of {quoted(str(structure))} where numbers from 1 to 1 should be")
    activation = tree.get("activation_func") or "linear"
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise _bad(name, f"activates by {quoted(str(activation))}; there are {', '.join(ACTIVATIONS)}")
    is_normal, activates_output = tree.get("is_layer_norm", False), tree.get("activate_output", True)
    pairs = list(zip(structure, structure[1:]))
    return [
        _Layer(
            before,
            after,
            ACTIVATIONS[activation] if activates_output or number < len(pairs) else None,
            bool(is_normal),
        )
        for number, (before, after) in enumerate(pairs, start=1)
    ]


def _is_structure(found: Any) -> bool:
    return (
        isinstance(found, Sequence)
        and len(found) > 1
        and all(isinstance(one, int | float) and 0 < one < math.inf for one in found)
        and found[0] == found[-1] == 1
    )


def _network(width: int, state: Any, layers: Sequence[_Layer], name: str) -> nn.Module:
    """A network of a file, its parameters taken in their order: numbers between them have none."""
    parameters = list(_parameters(state, width, name))
    modules: list[nn.Module] = []
    with torch.device("meta"):
        for layer in layers:
            modules.append(nn.Linear(int(width * layer.before), int(width * layer.after)))
            if layer.activation is not None:
                modules.append(layer.activation())
            if layer.is_normal:
                modules.append(nn.LayerNorm(int(width * layer.after)))
    network = nn.Sequential(*modules)
    wanted = [shapes for module in network if (shapes := _shapes(module))]
    found = [{part: tuple(tensor.shape) for part, tensor in own.items()} for own in parameters]
    if wanted != found:
        has, means = _sizes(found), _sizes(wanted)
        raise _bad(name, f"has other layers at {width} than it says: {has} instead of {means}")
    owners = [module for module in network if _shapes(module)]
    for module, own in zip(owners, parameters, strict=True):
        module.load_state_dict(own, assign=True)
    return network.eval().requires_grad_(False)


def _parameters(state: Any, width: int, name: str) -> Iterator[dict[str, torch.Tensor]]:
    """Of each module that has some, in order; copied, since the tensors of a file can be mapped from it."""
    if not isinstance(state, Mapping):
        raise _bad(name, f"has no network at {width}")
    found: dict[int, dict[str, torch.Tensor]] = {}
    for part, tensor in state.items():
        module, _, kind = str(part).rpartition(".")
        matched = _PARAMETER.fullmatch(f"{_OLD_NAMES.get(module, module)}.{kind}")
        if matched is None or not torch.is_tensor(tensor) or not tensor.is_floating_point():
            raise _bad(name, f"has {quoted(str(part))} at {width}, which is no part of such a network")
        # many times faster than to ask each number, and NaN is the least and the greatest of all
        if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise _bad(name, f"has numbers that are not finite in {quoted(str(part))} at {width}")
        own = found.setdefault(int(matched[1]), {})
        own[matched[2]] = tensor.detach().to("cpu", torch.float32, copy=True)
    return (dict(sorted(own.items())) for _, own in sorted(found.items()))


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {part: tuple(parameter.shape) for part, parameter in sorted(module.named_parameters())}


def _sizes(found: Sequence[Mapping[str, tuple[int, ...]]]) -> str:
    return ", ".join("×".join(map(str, own.get("weight", ()))) for own in found) or "none"


def _bad(name: str, what: str) -> BadFile:
    return BadFile(f"the hypernetwork {quoted(name)} {what}")
