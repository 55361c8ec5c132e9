"""Hypernetworks as A1111 writes them, against their formula written out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from farm.weights.hypernetwork import ACTIVATIONS, read_hypernetwork
from farm.weights.reading import read_object
from farm.weights.tensor_info import BadFile

WIDTH = 8
X = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(9))

FUNCTIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda x: x,
    "relu": lambda x: x.clamp(min=0),
    "leakyrelu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "swish": lambda x: x * (x + 3).clamp(0, 6) / 6,  # A1111 has Hardswish by that name
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "celu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "hardshrink": lambda x: torch.where(x.abs() > 0.5, x, 0),
    "hardsigmoid": lambda x: (x + 3).clamp(0, 6) / 6,
    "hardswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "hardtanh": lambda x: x.clamp(-1, 1),
    "logsigmoid": lambda x: -torch.log1p(torch.exp(-x)),
    "mish": lambda x: x * torch.tanh(torch.log1p(x.exp())),
    "relu6": lambda x: x.clamp(0, 6),
    "rrelu": lambda x: torch.where(x > 0, x, x * (1 / 8 + 1 / 3) / 2),
    "selu": lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1)),
    "silu": lambda x: x * torch.sigmoid(x),
    "softplus": lambda x: torch.log1p(x.exp()),
    "softshrink": lambda x: torch.where(x.abs() > 0.5, x - 0.5 * x.sign(), 0),
    "softsign": lambda x: x / (1 + x.abs()),
    "tanhshrink": lambda x: x - torch.tanh(x),
}

State = dict[str, torch.Tensor]


def state_of(modules: Sequence[nn.Module], seed: int) -> State:
    """Of a `Sequential` by the name of linear, as A1111's module has it, with random numbers."""
    network = nn.Module()
    network.linear = nn.Sequential(*modules)
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(one.shape, generator=generator) for name, one in network.state_dict().items()}


def linears(structure: Sequence[float]) -> list[nn.Linear]:
    widths = [int(WIDTH * one) for one in structure]
    return [nn.Linear(*pair) for pair in zip(widths, widths[1:])]


def file_of(modules: Sequence[nn.Module], folder: Path, **settings: Any) -> Any:
    """What is read of a file with networks of these modules."""
    pair = state_of(modules, 0), state_of(modules, 1)
    about = {"step": 200, "name": "ink", "sd_checkpoint_name": "v1-5"}
    torch.save({WIDTH: pair, **about, **settings}, folder / "h.pt")
    return read_object(folder / "h.pt")


def check(tree: Any, formula: Callable[[torch.Tensor, State], torch.Tensor]) -> None:
    """Holds both networks of a file against a formula over its tensors."""
    found = read_hypernetwork(tree, "in jobs")
    assert list(found.networks) == [WIDTH]
    for network, state in zip(found.networks[WIDTH], tree[WIDTH], strict=True):
        torch.testing.assert_close(network(X), formula(X, dict(state)))
        assert not network.training and not any(one.requires_grad for one in network.parameters())


@pytest.mark.parametrize("activate_output", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations(name: str, activate_output: bool, tmp_path: Path) -> None:
    first, second = linears([1, 2, 1])
    modules = [first, nn.ReLU(), second] if name != "linear" else [first, second]
    tree = file_of(
        modules, tmp_path, layer_structure=[1, 2, 1], activation_func=name, activate_output=activate_output
    )

    def formula(x: torch.Tensor, state: State) -> torch.Tensor:
        last = 2 if name != "linear" else 1
        x = F.linear(x, state["linear.0.weight"], state["linear.0.bias"])
        x = F.linear(FUNCTIONS[name](x), state[f"linear.{last}.weight"], state[f"linear.{last}.bias"])
        return FUNCTIONS[name](x) if activate_output else x

    check(tree, formula)


def test_every_activation_is_tried() -> None:
    assert FUNCTIONS.keys() | {"prelu"} == ACTIVATIONS.keys()


def test_prelu_has_a_number_of_its_own(tmp_path: Path) -> None:
    first, second = linears([1, 2, 1])
    tree = file_of([first, nn.PReLU(), second, nn.PReLU()], tmp_path, activation_func="prelu")

    def formula(x: torch.Tensor, state: State) -> torch.Tensor:
        for number in (0, 2):
            x = F.linear(x, state[f"linear.{number}.weight"], state[f"linear.{number}.bias"])
            x = torch.where(x > 0, x, x * state[f"linear.{number + 1}.weight"])
        return x

    check(tree, formula)


@pytest.mark.parametrize("structure", [[1, 1], [1, 2, 1], [1, 1.5, 1.5, 1], [1, 4, 2, 0.5, 1]], ids=str)
@pytest.mark.parametrize("is_normal", [True, False])
def test_structures_and_layer_normalization(structure: list[float], is_normal: bool, tmp_path: Path) -> None:
    modules: list[nn.Module] = []
    for layer in linears(structure):
        modules += [layer, nn.Tanh(), *([nn.LayerNorm(layer.out_features)] if is_normal else [])]
    tree = file_of(
        modules, tmp_path, layer_structure=structure, activation_func="tanh", is_layer_norm=is_normal
    )

    def formula(x: torch.Tensor, state: State) -> torch.Tensor:
        for number in range(0, len(modules), 3 if is_normal else 2):
            x = F.linear(x, state[f"linear.{number}.weight"], state[f"linear.{number}.bias"]).tanh()
            if is_normal:
                deviation = (x - x.mean(-1, keepdim=True)) / (
                    x.var(-1, keepdim=True, correction=0) + 1e-5
                ) ** 0.5
                x = deviation * state[f"linear.{number + 2}.weight"] + state[f"linear.{number + 2}.bias"]
        return x

    check(tree, formula)


@pytest.mark.parametrize(
    ("places", "settings"),
    [
        ((0,), {"use_dropout": True, "last_layer_dropout": False}),
        ((0, 1), {"use_dropout": True, "last_layer_dropout": True}),
        ((0, 1), {"use_dropout": True, "dropout_structure": [0, 0.3, 0.1, 0], "optional_info": "by ink"}),
        ((0, 1, 2), {"use_dropout": True}),  # of October 2022
        ((), {"use_dropout": True, "dropout_structure": [0, 0, 0, 0]}),
    ],
)
def test_dropout_moves_the_names_of_layers_and_does_nothing(
    places: tuple[int, ...], settings: dict[str, Any], tmp_path: Path
) -> None:
    modules: list[nn.Module] = []
    at: list[int] = []
    for number, layer in enumerate(linears([1, 2, 2, 1])):
        at.append(len(modules))
        modules += [
            layer,
            *([nn.ReLU()] if number < 2 else []),
            *([nn.Dropout(0.3)] if number in places else []),
        ]
    tree = file_of(
        modules, tmp_path, layer_structure=[1, 2, 2, 1], activation_func="relu", activate_output=False,
        **settings,
    )  # fmt: skip

    def formula(x: torch.Tensor, state: State) -> torch.Tensor:
        for number, place in enumerate(at):
            x = F.linear(x, state[f"linear.{place}.weight"], state[f"linear.{place}.bias"])
            x = x.relu() if number < 2 else x
        return x

    check(tree, formula)


def test_old_files_have_other_names_and_say_nothing_of_layers(tmp_path: Path) -> None:
    def old(seed: int) -> State:
        found = state_of(linears([1, 2, 1]), seed)
        return {name.replace("linear.0", "linear1").replace("linear.1", "linear2"): one
                for name, one in reversed(found.items())}  # fmt: skip

    torch.save({WIDTH: (old(0), old(1))}, tmp_path / "old.pt")

    def formula(x: torch.Tensor, state: State) -> torch.Tensor:
        x = F.linear(x, state["linear1.weight"], state["linear1.bias"])
        return F.linear(x, state["linear2.weight"], state["linear2.bias"])

    check(tree := read_object(tmp_path / "old.pt"), formula)
    found = read_hypernetwork(tree, "in jobs")
    assert (found.title, found.step, found.base_model) == ("", None, "")


def test_what_a_file_says_of_itself_and_half_precision(tmp_path: Path) -> None:
    modules = linears([1, 2, 1])
    states = [{name: one.half() for name, one in state_of(modules, seed).items()} for seed in (0, 1)]
    tree = file_of(modules, tmp_path) | {WIDTH: states}
    found = read_hypernetwork(tree, "in jobs")
    assert (found.name, found.title, found.step, found.base_model) == ("in jobs", "ink", 200, "v1-5")
    assert {one.dtype for one in found.networks[WIDTH][0].parameters()} == {torch.float32}
    moved = found.to(torch.device("cpu"), torch.bfloat16)
    assert {one.dtype for one in moved.networks[WIDTH][1].parameters()} == {torch.bfloat16}
    assert {one.dtype for one in found.networks[WIDTH][1].parameters()} == {torch.float32}  # a copy
    assert found.size == 2 * moved.size == 2 * 4 * (2 * 8 * 16 + 16 + 8)


def test_it_does_not_hold_on_to_the_file() -> None:
    """Whose tensors can be mapped from the disk."""
    state = state_of(linears([1, 2, 1]), 0)
    [network, _] = read_hypernetwork({WIDTH: (state, state)}, "in jobs").networks[WIDTH]
    before = network(X)
    for one in state.values():
        one.zero_()
    assert torch.equal(network(X), before)


PAIR = {WIDTH: (state_of(linears([1, 2, 1]), 0), state_of(linears([1, 2, 1]), 1))}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([], "is none: it has no networks by the width of what they change"),
        ({"name": "ink", "step": 3}, "is none: it has no networks"),
        ({True: PAIR[WIDTH], 0: PAIR[WIDTH]}, "is none: it has no networks"),
        ({"8": PAIR[WIDTH]}, "is none: it has no networks"),
        ({8: PAIR[WIDTH][:1]}, "has no pair of networks, for keys and values, at 8"),
        ({8: PAIR[WIDTH][0]}, "has no pair of networks, for keys and values, at 8"),
        ({8: (PAIR[WIDTH][0], None)}, "has no network at 8"),
        ({8: ({}, {})}, "has other layers at 8 than it says: none instead of 16×8, 8×16"),
        ({9: PAIR[WIDTH]}, "has other layers at 9 than it says: 16×8, 8×16 instead of 18×9, 9×18"),
        (PAIR | {"layer_structure": [1, 4, 1]}, "16×8, 8×16 instead of 32×8, 8×32"),
        (PAIR | {"is_layer_norm": True}, "16×8, 8×16 instead of 16×8, 16, 8×16, 8"),
        (PAIR | {"layer_structure": [2, 1]}, "has layers of '[2, 1]' where numbers from 1 to 1 should be"),
        (PAIR | {"layer_structure": [1]}, "has layers of '[1]' where"),
        (PAIR | {"layer_structure": [1, float("inf"), 1]}, "has layers of '[1, inf, 1]' where"),
        (PAIR | {"layer_structure": [1, 1e12, 1]}, "has other layers at 8 than it says"),
        (PAIR | {"layer_structure": "1, 2, 1"}, "has layers of '1, 2, 1' where"),
        (PAIR | {"activation_func": "softmax"}, "activates by 'softmax'; there are linear, relu, leakyrelu"),
        (PAIR | {"activation_func": ["relu"]}, "activates by \"['relu']\"; there are"),
        ({8: ({"linear.0.weight": 3}, {})}, "has 'linear.0.weight' at 8, which is no part of such a network"),
        ({8: ({"lora_up.weight": X}, {})}, "has 'lora_up.weight' at 8, which is no part of such a network"),
        ({8: ({"linear.0.weight": X.int()}, {})}, "has 'linear.0.weight' at 8, which is no part"),
        ({8: ({"linear.0.weight": X * torch.inf}, {})}, "has numbers that are not finite in 'linear.0"),
        ({8: ({"linear.0.weight": X * torch.nan}, {})}, "has numbers that are not finite in 'linear.0"),
    ],
)  # fmt: skip
def test_what_is_no_hypernetwork_is_said_in_one_line(tree: Any, message: str) -> None:
    with pytest.raises(BadFile) as raised:
        read_hypernetwork(tree, "in jobs")
    assert message in str(raised.value) and str(raised.value).startswith("the hypernetwork 'in jobs' ")
    assert "\n" not in str(raised.value)
