import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st

from farm.cell import Settings
from farm.errors import CellFailed
from farm.render.deepcache import DeepCache, Features, shallow_output, with_features
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from farm.weights.configs import skip_connections_of
from tests.render.on_the_model import decoded, k_diffusion_model, k_diffusion_sigmas, with_guidance
from tests.render.oracles import k_diffusion
from tests.render.rendering import LEVELS, Counting, apart, render

BASE = Settings("m", "a ginger cat", "blurry", "Euler", 7, 5.0, 3, 64, 64, schedule="uniform")
DOWN = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
SDXL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (8, 16, 16),
    "transformer_layers_per_block": (1, 2, 2),
    "use_linear_projection": True,
}


def unet(**config: Any) -> UNet2DConditionModel:
    """The blocks of Stable Diffusion, with fewer channels and random weights."""
    torch.manual_seed(0)
    shape = {"block_out_channels": (8, 16, 16, 16), "down_block_types": DOWN, "up_block_types": UP}
    return UNet2DConditionModel(
        **{"cross_attention_dim": 8, "attention_head_dim": 2, "norm_num_groups": 4, **shape, **config}
    ).eval()


def inputs(height: int, width: int, channels: int = 8) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 4, height, width, generator=generator),
        torch.tensor([900.0, 20.0]),
        torch.randn(2, 77, channels, generator=generator),
    )


# a shallow pass


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (24, 16)], ids=str)
@pytest.mark.parametrize(
    ("config", "branches"), [({}, 12), (SDXL, 9), ({"layers_per_block": 1}, 8)], ids=["SD", "SDXL", "thin"]
)
@torch.inference_mode()
def test_with_the_features_of_its_own_input_it_is_the_full_pass(
    config: dict[str, Any], branches: int, size: tuple[int, int]
) -> None:
    network, given_inputs = unet(**config), inputs(*size)
    whole = network(*given_inputs, return_dict=False)[0]
    for branch in range(branches):
        output, features = with_features(network, branch, *given_inputs)
        assert torch.equal(output, whole)
        shallow = shallow_output(network, branch, *given_inputs, torch.stack(features))
        torch.testing.assert_close(shallow, whole, rtol=0, atol=1e-6)
    with pytest.raises(
        CellFailed, match=rf"deepcache_branch: {branches} is too much .* {branches - 1} is the"
    ):
        with_features(network, branches, *given_inputs)


@pytest.mark.parametrize(
    ("config", "branches"),
    [({}, 12), (SDXL, 9), ({"layers_per_block": 1}, 8), ({"layers_per_block": [1, 2, 2, 3]}, 12)],
    ids=str,
)
def test_branches_are_as_many_as_checkpoints_say(
    config: dict[str, Any], branches: int, tmp_path: Path
) -> None:
    """So that a job can be checked without the network."""
    network = unet(**config)
    network.save_config(tmp_path / "unet")
    assert skip_connections_of(tmp_path) == branches
    with_features(network, branches - 1, *inputs(8, 8))
    with pytest.raises(CellFailed):
        with_features(network, branches, *inputs(8, 8))


@pytest.mark.parametrize("branch", range(4))
@torch.inference_mode()
def test_so_it_is_on_the_model(branch: int, networks: Networks) -> None:
    given_inputs = inputs(8, 8, 128)
    output, features = with_features(networks.unet, branch, *given_inputs)
    shallow = shallow_output(networks.unet, branch, *given_inputs, torch.stack(features))
    torch.testing.assert_close(shallow, output, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_deeper_blocks_are_not_computed() -> None:
    network, given_inputs = unet(), inputs(8, 8)
    ran: list[str] = []
    for name, module in network.named_modules():
        if ".resnets." in name and name.rsplit(".", 1)[1].isdigit():
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    _, features = with_features(network, 4, *given_inputs)
    ran.clear()
    shallow_output(network, 4, *given_inputs, torch.stack(features))
    outer = ["down_blocks.0.resnets.0", "down_blocks.0.resnets.1", "down_blocks.1.resnets.0"]
    assert ran == [*outer, *(f"up_blocks.{block}.resnets.{number}" for block, number in
                             [(2, 1), (2, 2), (3, 0), (3, 1), (3, 2)])]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"down_block_types": (*DOWN[:3], "AttnDownBlock2D")}, "AttnDownBlock2D"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"center_input_sample": True}, "center_input_sample"),
    ],
    ids=str,
)
def test_networks_that_it_would_not_be_true_of_are_turned_down(config: dict[str, Any], what: str) -> None:
    with pytest.raises(CellFailed, match=f"deepcache_interval: a network with {what} cannot"):
        with_features(unet(**config), 0, *inputs(8, 8))
    with pytest.raises(CellFailed, match="deepcache_interval: a network with Linear cannot"):
        with_features(torch.nn.Linear(1, 1), 0, *inputs(8, 8))


# what a cell holds


@given(st.integers(2, 6), st.lists(st.booleans(), min_size=1, max_size=40))
def test_features_are_younger_than_the_interval_and_let_go_after_their_last_use(
    interval: int, computed: list[bool]
) -> None:
    """A row that is left out now and then, as guidance can do."""
    features, made, alive = Features(DeepCache(interval, 0)), None, weakref.ref(torch.zeros(1))
    for evaluation in (number for number, present in enumerate(computed) if present):
        taken = features.take("row", evaluation)
        assert (taken is None) == (made is None or evaluation - made >= interval)
        if taken is None:
            assert alive() is None
            made, fresh = evaluation, torch.full((1,), float(evaluation))
            alive = weakref.ref(fresh)
            [output] = features.kept(["row"], evaluation, [(torch.ones(1), fresh)])
            del fresh
            assert torch.equal(output, torch.ones(1)) and alive() is not None
        else:
            assert taken.item() == made
            [output] = features.kept(["row"], evaluation, [torch.ones(2)])
            del taken
            assert output.shape == (2,) and (alive() is None) == (evaluation + 1 - made >= interval)


def test_without_it_nothing_is_held() -> None:
    features = Features(None)
    assert features.take("row", 0) is None and features.take("row", 1) is None


@torch.inference_mode()
def test_features_of_a_row_keep_no_other_in_memory() -> None:
    _, features = with_features(unet(), 2, *inputs(8, 8))
    assert [row.untyped_storage().nbytes() for row in features] == [row.nbytes for row in features]


# pictures

CHANNELS = (64, 64, 64, 128)
"""Of the model's skip connections, the outermost first."""


@contextmanager
def deep_features_replaced(networks: Networks, wanted: Settings) -> Iterator[None]:
    """The whole UNet, but where the branch begins the features of the last full pass are put in."""
    layers = [resnet for block in networks.unet.up_blocks for resnet in block.resnets]
    evaluations, held = count(), []
    skipped = CHANNELS[wanted.deepcache_branch]

    def put(_: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if next(evaluations) % wanted.deepcache_interval == 0:
            held[:] = [arguments[0][:, :-skipped]]
        return (torch.cat([held[0], arguments[0][:, -skipped:]], dim=1), *arguments[1:])

    hook = layers[-1 - wanted.deepcache_branch].register_forward_pre_hook(put)
    yield
    hook.remove()


@torch.inference_mode()
def loop(wanted: Settings, networks: Networks) -> np.ndarray:
    """k-diffusion's sampler over such a UNet."""
    row, model = BUILT_IN[wanted.sampler], k_diffusion_model(wanted, networks)
    sigmas = k_diffusion_sigmas(row, wanted, model)
    generator = torch.Generator().manual_seed(wanted.seed)
    x = torch.randn((1, 4, wanted.height // 8, wanted.width // 8), generator=generator) * sigmas[0]
    sample = getattr(k_diffusion("sampling"), f"sample_{row.algorithm}")
    with deep_features_replaced(networks, wanted):
        latents = sample(lambda x, sigma: with_guidance(model, wanted, x, sigma), x, sigmas, disable=True)
    return decoded(latents, networks)


CASES = [
    replace(BASE, sampler=sampler, deepcache_interval=interval, deepcache_branch=branch)
    for sampler, interval, branch in [
        ("Euler", 2, 0), ("Euler", 3, 1), ("Heun", 2, 0), ("Heun", 4, 2), ("DPM++ 2M", 5, 3),
        ("Euler", 99, 0),
    ]
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parity
def test_pictures_are_those_of_a_loop_with_the_features_put_in(networks: Networks) -> None:
    """All side by side, so that full and shallow rows of other branches wait for each other."""
    pictures = render(CASES, Counting(networks))
    for wanted, picture in zip(CASES, pictures, strict=True):
        assert apart(picture, loop(wanted, networks)) <= LEVELS, wanted
        assert apart(picture, loop(replace(wanted, deepcache_interval=1), networks)) > LEVELS, wanted
