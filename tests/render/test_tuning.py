"""UNets made faster, with the kinds of attention that they can have."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import FusedAttnProcessor2_0

from farm.render.deepcache import shallow_output, with_features
from farm.render.offloading import bytes_of
from farm.render.token_merging import tokens_merged
from farm.render.tuning import faster
from farm.weights.checkpoint import Networks
from tests.render.test_deepcache import DOWN, SDXL, UP, inputs, unet

ADDED: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3),
    "up_block_types": (*["SimpleCrossAttnUpBlock2D"] * 3, "UpBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "SD": {},
    "SDXL": SDXL,
    "text alone": {"only_cross_attention": (True, False, False, False)},
    "with biases": {"down_block_types": ("AttnDownBlock2D", *DOWN[1:]),
                    "up_block_types": (*UP[:3], "AttnUpBlock2D")},
    "added projections": ADDED,
}  # fmt: skip


def tuned(network: Any, networks: Networks) -> Any:
    return faster(replace(networks, unet=network, vae=copy.deepcopy(networks.vae))).unet


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.inference_mode()
def test_it_takes_no_more_memory_and_answers_the_same(config: dict[str, Any], networks: Networks) -> None:
    network, given = unet(**config), inputs(8, 8)
    wanted, size = network(*given, return_dict=False)[0], bytes_of(network.parameters())
    for _ in range(2):  # networks that are fast already stay so
        network = tuned(network, networks)
        assert bytes_of(network.parameters()) == size
        torch.testing.assert_close(network(*given, return_dict=False)[0], wanted, rtol=0, atol=1e-5)
    fused = [isinstance(each, FusedAttnProcessor2_0) for each in network.attn_processors.values()]
    assert all(fused) if config is not ADDED else not any(fused)


@pytest.mark.parametrize("ratio", [0, 0.5])
@torch.inference_mode()
def test_its_approximations_are_the_same(ratio: float, networks: Networks) -> None:
    given = inputs(8, 8)

    def passes(network: Any) -> list[torch.Tensor]:
        with tokens_merged(network, ratio, given[0]):
            output, features = with_features(network, 2, *given)
            return [output, shallow_output(network, 2, *given, torch.stack(features))]

    for one, other in zip(passes(tuned(unet(), networks)), passes(unet()), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
