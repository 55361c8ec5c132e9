"""Hypernetworks in UNets, against attention that is written out."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from farm.render.deepcache import shallow_output, with_features
from farm.render.hypernetworks import Applied, chained, hypernetworks_applied
from farm.render.offloading import Streamed
from farm.render.token_merging import tokens_merged
from farm.weights.checkpoint import Networks
from farm.weights.hypernetwork import read_hypernetwork
from tests.render.scarce import OnDevice, Scarce
from tests.render.test_deepcache import DOWN, UP, unet
from tests.render.test_tuning import tuned

pytestmark = pytest.mark.slow  # there are many of them, on networks of several kinds

State = dict[str, torch.Tensor]
Tree = dict[Any, Any]
Acting = tuple[Tree, Sequence[float]]
"""What is in a file, and its strength for each row."""

TEXT, OUTER, INNER = 12, 8, 16
"""Widths of contexts in the UNet below: of the text, and of the picture's features at its levels."""


def tree(*widths: int, seed: int = 0, scale: float = 0.4) -> Tree:
    generator = torch.Generator().manual_seed(seed)

    def state(width: int) -> State:
        shapes = {"0.weight": (2 * width, width), "0.bias": (2 * width,),
                  "2.weight": (width, 2 * width), "2.bias": (width,)}  # fmt: skip
        return {
            f"linear.{name}": torch.randn(shape, generator=generator) * scale
            for name, shape in shapes.items()
        }

    networks = {width: (state(width), state(width)) for width in widths}
    return {**networks, "activation_func": "relu", "activate_output": False}


def answered(state: State, x: torch.Tensor) -> torch.Tensor:
    hidden = F.linear(x, state["linear.0.weight"], state["linear.0.bias"]).relu()
    return F.linear(hidden, state["linear.2.weight"], state["linear.2.bias"])


class WrittenOut:
    """Attention in plain words, its keys and values made of contexts that hypernetworks changed."""

    def __init__(self, acting: Sequence[Acting], beside: Callable[..., torch.Tensor] | None = None) -> None:
        self.acting, self.beside, self.widths = acting, beside, []

    def context(self, x: torch.Tensor, which: int) -> torch.Tensor:
        self.widths.append(x.shape[-1])
        for file, strengths in self.acting:
            if x.shape[-1] in file:
                change = answered(file[x.shape[-1]][which], x)
                x = torch.stack([row + change[at] * strengths[at] for at, row in enumerate(x)])
        return x

    def __call__(
        self, attention: Any, hidden_states: torch.Tensor, encoder_hidden_states: Any = None, **_: Any
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        inputs = hidden_states, self.context(context, 0), self.context(context, 1)
        projected = []
        for name, x in zip(("to_q", "to_k", "to_v"), inputs, strict=True):
            linear = getattr(attention, name)
            own = F.linear(x, linear.weight, linear.bias)
            if self.beside is not None and name != "to_q":
                own = own + self.beside(x, own.shape[-1])
            projected.append(own.unflatten(-1, (attention.heads, -1)).transpose(1, 2))
        query, key, value = projected
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        return attention.to_out[0]((weights @ value).transpose(1, 2).flatten(2))


def written_out(network: Any, acting: Sequence[Acting], **others: Any) -> tuple[Any, WrittenOut]:
    """A copy of a UNet whose transformer blocks attend so."""
    network, processor = copy.deepcopy(network), WrittenOut(acting, **others)
    for name, module in network.named_modules():
        if name.endswith((".attn1", ".attn2")):
            module.set_processor(processor)
    return network, processor


def applied(acting: Sequence[Acting]) -> list[Applied]:
    return [Applied(read_hypernetwork(file, "ink"), torch.tensor(strengths)) for file, strengths in acting]


def inputs(rows: int = 4, channels: int = TEXT) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(4, 4, 8, 8, generator=generator)
    times = torch.tensor([900.0, 20.0, 500.0, 431.5])
    return latents[:rows], times[:rows], torch.randn(4, 77, channels, generator=generator)[:rows]


def prepared(kind: str, networks: Networks, **config: Any) -> Any:
    """The UNet as it is, or with its projections fused."""
    network = unet(**{"cross_attention_dim": TEXT, **config})
    return tuned(network, networks) if kind == "fused" else network


@torch.inference_mode()
def output(network: Any, acting: Sequence[Acting] = (), rows: int = 4, **others: Any) -> torch.Tensor:
    with hypernetworks_applied(network, applied(acting)):
        return network(*inputs(rows, **others), return_dict=False)[0]


@torch.inference_mode()
def formula(acting: Sequence[Acting], config: dict[str, Any] | None = None, **others: Any) -> torch.Tensor:
    network, _ = written_out(unet(**{"cross_attention_dim": TEXT, **(config or {})}), acting)
    return network(*inputs(**others), return_dict=False)[0]


STRENGTHS = [1.0, 0.0, 0.3, -1.2]
CASES: dict[str, list[Acting]] = {
    "text": [(tree(TEXT), STRENGTHS)],
    "features": [(tree(OUTER, INNER), STRENGTHS)],
    "inner features": [(tree(INNER), STRENGTHS)],
    "all": [(tree(TEXT, OUTER, INNER), STRENGTHS)],
    "two": [(tree(TEXT, INNER), STRENGTHS), (tree(OUTER, TEXT, seed=7), [0.0, 0.5, 1.0, 1.0])],
    "two, the other way round": [
        (tree(OUTER, TEXT, seed=7), [0.0, 0.5, 1.0, 1.0]), (tree(TEXT, INNER), STRENGTHS)],
    "the same twice": [(tree(TEXT), [0.5] * 4), (tree(TEXT), [0.0, 0.5, 0.0, 1.0])],
    "of another family": [(tree(320, 768), STRENGTHS)],
    "none": [],
}  # fmt: skip
KINDS = ["apart", "fused"]


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("acting", CASES.values(), ids=CASES)
def test_a_unet_equals_the_formula(acting: list[Acting], kind: str, networks: Networks) -> None:
    found = output(prepared(kind, networks), acting)
    torch.testing.assert_close(found, formula(acting), rtol=0, atol=2e-5)
    as_without = [row for row in range(4) if all(strengths[row] == 0 for _, strengths in acting)]
    without = output(prepared(kind, networks))
    for row in range(4):  # it does something where it should
        is_same = row in as_without or acting == CASES["of another family"]
        assert torch.allclose(found[row], without[row], rtol=0, atol=1e-3) == is_same


def test_the_order_counts() -> None:
    one, other = formula(CASES["two"]), formula(CASES["two, the other way round"])
    assert (one - other).abs().max() > 1e-2


def test_the_formula_is_that_of_diffusers() -> None:
    torch.testing.assert_close(formula([]), output(unet(cross_attention_dim=TEXT)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "config",
    [
        {"down_block_types": ("AttnDownBlock2D", *DOWN[1:]), "up_block_types": (*UP[:3], "AttnUpBlock2D")},
        {"only_cross_attention": (True, False, False, False)},
        {"transformer_layers_per_block": 2},
        {"cross_attention_dim": OUTER},
    ],
    ids=["other attention", "text alone", "two blocks", "a narrow text"],
)
def test_other_networks(config: dict[str, Any], kind: str, networks: Networks) -> None:
    """Attention outside of transformer blocks is not meant; a text as wide as features is, with them."""
    channels = config.get("cross_attention_dim", TEXT)
    acting = CASES["all"]
    found = output(prepared(kind, networks, **config), acting, channels=channels)
    wanted = formula(acting, config, channels=channels)
    torch.testing.assert_close(found, wanted, rtol=0, atol=5e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_row_of_strength_0_is_as_without_to_the_bit(
    kind: str, dtype: torch.dtype, networks: Networks
) -> None:
    """Beside rows for which the numbers overflow, too."""
    network = prepared(kind, networks).to(dtype)
    given = [one.to(dtype) for one in inputs()]
    without = network(*given, return_dict=False)[0]
    for scale in (0.4, 1e25):
        hypernetwork = read_hypernetwork(tree(TEXT, OUTER, INNER, scale=scale), "ink")
        moved = hypernetwork.to(torch.device("cpu"), dtype)
        strengths = torch.tensor([0.0, 1.0, 0.0, 0.5])
        with hypernetworks_applied(network, [Applied(moved, strengths), Applied(moved, strengths)]):
            found = network(*given, return_dict=False)[0]
        assert found.dtype == dtype
        assert torch.equal(found[0], without[0]) and torch.equal(found[2], without[2])
        assert not torch.allclose(found[1], without[1]) and not torch.allclose(found[3], without[3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_answered_as_if_alone(kind: str, networks: Networks) -> None:
    network = prepared(kind, networks)
    [(file, strengths)] = CASES["all"]
    alone = output(network, [(file, strengths[:1])], rows=1)
    torch.testing.assert_close(output(network, CASES["all"])[:1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "chain"),
    [
        ([], []),
        ([[], []], []),
        ([[("a", 0.5)], [], [("a", 1.0)]], [("a", [0.5, 0, 1])]),
        ([[("a", 0.5)], [("b", 1.0)]], [("a", [0.5, 0]), ("b", [0, 1])]),
        ([[("a", 1.0), ("b", 2.0)], [("b", 3.0)]], [("a", [1, 0]), ("b", [2, 3])]),
        ([[("a", 1.0), ("b", 2.0)], [("b", 3.0), ("a", 4.0)]], [("a", [1, 0]), ("b", [2, 3]), ("a", [0, 4])]),
        (
            [[("a", 1.0)], [("b", 2.0), ("a", 3.0)], [("b", 4.0), ("a", 5.0)]],
            [("b", [0, 2, 4]), ("a", [1, 3, 5])],
        ),
        ([[("a", 1.0), ("a", 2.0)], [("a", 3.0)]], [("a", [1, 3]), ("a", [2, 0])]),
    ],
)
def test_rows_share_a_chain(rows: list[list[tuple[str, float]]], chain: list[Any]) -> None:
    assert chained(rows) == chain


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 2)), max_size=4), max_size=5))
def test_each_row_keeps_its_own_order(rows: list[list[tuple[str, float]]]) -> None:
    chain = chained(rows)
    for number, row in enumerate(rows):
        assert [(name, strengths[number]) for name, strengths in chain if strengths[number]] == row
    assert len(chain) <= sum(map(len, rows))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_other_hypernetworks_share_a_call(kind: str, networks: Networks) -> None:
    network = prepared(kind, networks)
    files = {"a": tree(TEXT, INNER), "b": tree(OUTER, TEXT, seed=7)}
    rows = [[("a", 1.0), ("b", 0.5)], [], [("b", 0.5), ("a", 1.0)], [("b", -0.3)]]
    together = output(network, [(files[name], strengths) for name, strengths in chained(rows)])
    for number, row in enumerate(rows):
        alone = output(network, [(files[name], [strength] * 4) for name, strength in row])[number]
        torch.testing.assert_close(together[number], alone, rtol=0, atol=1e-5)
        assert torch.equal(together[number], alone)


# Beside others


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0, 0.5])
@torch.inference_mode()
def test_beside_merged_tokens_and_deep_features(kind: str, ratio: float, networks: Networks) -> None:
    """Networks see the tokens that are left, as they do in A1111."""
    given = inputs()

    def passes(network: Any, acting: Sequence[Acting]) -> list[torch.Tensor]:
        with tokens_merged(network, ratio, given[0]), hypernetworks_applied(network, applied(acting)):
            full, features = with_features(network, 2, *given)
            return [full, shallow_output(network, 2, *given, torch.stack(features))]

    wanted, _ = written_out(unet(cross_attention_dim=TEXT), CASES["all"])
    for one, other in zip(passes(prepared(kind, networks), CASES["all"]), passes(wanted, []), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [0, 10**4], ids=["layer by layer", "in large groups"])
def test_beside_weights_that_come_as_they_are_needed(kind: str, most: int, networks: Networks) -> None:
    network, memory = prepared(kind, networks), Scarce(10**9)
    wanted = output(network, CASES["two"])
    Streamed(network, memory, most)
    with OnDevice(memory):
        assert all(torch.equal(output(network, CASES["two"]), wanted) for _ in range(3))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_what_others_add_to_projections_is_made_of_the_changed_context(kind: str, networks: Networks) -> None:
    """As a LoRA does that is a hook."""
    network = prepared(kind, networks)
    names = ("to_k", "to_v") if kind == "apart" else ("to_kv", "to_qkv")

    def added(x: torch.Tensor, width: int) -> torch.Tensor:
        return x.mean(-1, keepdim=True).expand(-1, -1, width)

    def add(module: Any, given: Any, output: torch.Tensor) -> torch.Tensor:
        addition = added(given[0], output.shape[-1]).clone()
        if module.out_features == 3 * module.in_features:  # not to queries
            addition[..., : module.in_features] = 0
        return output + addition

    blocks = [module for name, module in network.named_modules() if name.endswith((".attn1", ".attn2"))]
    for block in blocks:
        for name in names:
            if hasattr(block, name):
                getattr(block, name).register_forward_hook(add)
    wanted, _ = written_out(unet(cross_attention_dim=TEXT), CASES["all"], beside=added)
    found = output(network, CASES["all"])
    torch.testing.assert_close(found, wanted(*inputs(), return_dict=False)[0], rtol=0, atol=5e-5)


# How


def hooks_of(network: Any) -> list[int]:
    return [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in network.modules()]


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_the_network_is_as_it_was_also_after_a_mistake(kind: str, networks: Networks) -> None:
    network = prepared(kind, networks)
    before, hooks = output(network), hooks_of(network)
    acting = applied(CASES["all"])
    with hypernetworks_applied(network, acting):
        assert hooks_of(network) != hooks
        network(*inputs(), return_dict=False)
    assert hooks_of(network) == hooks
    with pytest.raises(RuntimeError), hypernetworks_applied(network, acting):
        network(*inputs(channels=TEXT + 1), return_dict=False)
    with pytest.raises(RuntimeError), hypernetworks_applied(network, acting):
        network(*inputs(rows=3), return_dict=False)  # that are not as many as strengths
    assert hooks_of(network) == hooks and torch.equal(output(network), before)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_networks_of_a_text_run_once_in_a_call(kind: str, networks: Networks) -> None:
    """All attention of a UNet looks at the same text; at features of its own each."""
    network = prepared(kind, networks)
    hypernetwork, ran = read_hypernetwork(tree(TEXT, OUTER, INNER), "ink"), []

    def count(width: int, which: int) -> Callable[..., None]:
        return lambda *_: ran.append((width, which))

    for width, pair in hypernetwork.networks.items():
        for which, own in enumerate(pair):
            own.register_forward_hook(count(width, which))
    with hypernetworks_applied(network, [Applied(hypernetwork, torch.ones(4))]):
        for _ in range(2):
            network(*inputs(), return_dict=False)
    wanted, seen = written_out(unet(cross_attention_dim=TEXT), [])
    wanted(*inputs(), return_dict=False)
    for which in (0, 1):
        assert ran.count((TEXT, which)) == 2  # of two calls
        for width in (OUTER, INNER):
            assert ran.count((width, which)) == seen.widths.count(width) > 2


@torch.inference_mode()
def test_on_the_model(networks: Networks) -> None:
    """tiny-cats, whose text is 128 wide."""
    acting = [(tree(128, 64, scale=0.05), [0.8, 0.0])]
    wanted, _ = written_out(networks.unet, acting)
    given = inputs(2, channels=128)
    with hypernetworks_applied(networks.unet, applied(acting)):
        found = networks.unet(*given, return_dict=False)[0]
    torch.testing.assert_close(found, wanted(*given, return_dict=False)[0], rtol=0, atol=5e-5)
    without = networks.unet(*given, return_dict=False)[0]
    assert torch.equal(found[1], without[1]) and not torch.allclose(found[0], without[0], atol=1e-2)
