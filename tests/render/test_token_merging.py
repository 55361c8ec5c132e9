from itertools import product

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import CellFailed
from farm.render.token_merging import find_merge, merged, tiles, tokens_merged, unmerged
from farm.weights.checkpoint import Networks

SIDES = st.integers(1, 9)
RATIOS = st.floats(0, 0.75)


def tokens(rows: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, height * width, 6, dtype=torch.float64, generator=generator)


@given(SIDES, SIDES)
def test_every_tile_has_one_destination(height: int, width: int) -> None:
    destinations, others = tiles(height, width)
    assert sorted([*destinations.tolist(), *others.tolist()]) == list(range(height * width))
    found = [divmod(place, width) for place in destinations.tolist()]
    assert found == list(product(range(0, height, 2), range(0, width, 2)))


@given(st.integers(1, 3), SIDES, SIDES, RATIOS, st.integers(0, 99))
def test_what_is_left_are_means_and_every_place_gets_its_own(
    rows: int, height: int, width: int, ratio: float, seed: int
) -> None:
    given_tokens = tokens(rows, height, width, seed)
    merge = find_merge(given_tokens, ratio, tiles(height, width))
    left = merged(given_tokens, merge)
    gone = min(int(ratio * height * width), len(tiles(height, width)[1]))
    assert left.shape == (rows, height * width - gone, 6)
    back = unmerged(left, merge)
    for row in range(rows):
        groups = {place: [place] for place in merge.destinations.tolist()}
        for place, into in zip(merge.merged[row].tolist(), merge.into[row].tolist(), strict=True):
            groups[int(merge.destinations[into])].append(place)
        groups |= {place: [place] for place in merge.alone[row].tolist()}
        assert sorted(place for group in groups.values() for place in group) == list(range(height * width))
        for group in groups.values():
            mean = given_tokens[row, group].mean(0)
            torch.testing.assert_close(back[row, group], mean.expand(len(group), -1))


def test_tokens_go_to_the_likest_destination_the_likest_first() -> None:
    given_tokens = tokens(2, 6, 6)
    merge = find_merge(given_tokens, 0.4, tiles(6, 6))
    others = tiles(6, 6)[1].tolist()
    for row in range(2):
        likeness = torch.nn.functional.cosine_similarity(
            given_tokens[row, :, None], given_tokens[row, None, merge.destinations], dim=-1
        )
        best = sorted(others, key=lambda place: -float(likeness[place].max()))
        assert merge.merged[row].tolist() == best[: int(0.4 * 36)]
        assert merge.into[row].tolist() == [int(likeness[place].argmax()) for place in merge.merged[row]]


def test_without_merging_nothing_changes() -> None:
    given_tokens = tokens(2, 5, 4)
    merge = find_merge(given_tokens, 0, tiles(5, 4))
    assert torch.equal(unmerged(merged(given_tokens, merge), merge), given_tokens)


def test_a_row_does_not_see_its_neighbours() -> None:
    together = tokens(4, 6, 8)
    merge = find_merge(together, 0.5, tiles(6, 8))
    for row in range(4):
        alone = find_merge(together[row : row + 1], 0.5, tiles(6, 8))
        assert torch.equal(alone.merged[0], merge.merged[row]) and torch.equal(alone.into[0], merge.into[row])


@torch.inference_mode()
def test_attention_over_tokens_that_are_alike_is_exact() -> None:
    """Where a tile's four tokens are equal, all weigh the same before and after, so the softmax does not."""
    torch.manual_seed(1)
    attention = Attention(6, heads=2, dim_head=3).double()
    blocks = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    given_tokens = blocks.repeat_interleave(2, 1).repeat_interleave(2, 2).reshape(2, 48, 6)
    merge = find_merge(given_tokens, 0.75, tiles(6, 8))
    left = merged(given_tokens, merge)
    assert left.shape == (2, 12, 6)
    processor = AttnProcessor2_0()
    torch.testing.assert_close(
        unmerged(processor(attention, left), merge), processor(attention, given_tokens)
    )


# in a UNet


def inputs(height: int, width: int, channels: int, rows: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(rows, 4, height, width, generator=generator),
        torch.tensor([900.0, 20.0])[:rows],
        torch.randn(rows, 77, channels, generator=generator),
    )


@torch.inference_mode()
def seen(unet: UNet2DConditionModel, ratio: float, height: int, width: int, channels: int) -> list[int]:
    """How many tokens each self-attention's keys had, in the order in which they ran."""
    counts: list[int] = []

    def note(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        counts.append(arguments[0].shape[1])

    layers = [block for name, block in unet.named_modules() if name.endswith("attn1.to_k")]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    given_inputs = inputs(height, width, channels)
    with tokens_merged(unet, ratio, given_inputs[0]):
        unet(*given_inputs, return_dict=False)
    for hook in hooks:
        hook.remove()
    return counts


def small(**config: object) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(8, 16, 16), layers_per_block=1, cross_attention_dim=8, attention_head_dim=2,
        norm_num_groups=4, **config,
    ).eval()  # fmt: skip


CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UNETS = {
    "Stable Diffusion": ((CROSS, CROSS, PLAIN), ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")),
    "SDXL": ((PLAIN, CROSS, CROSS), ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")),
}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("Stable Diffusion", [99, 30, 9, 30, 30, 99, 99], [50, 30, 9, 30, 30, 50, 50]),
        ("SDXL", [30, 9, 9, 9, 9, 30, 30], [15, 9, 9, 9, 9, 15, 15]),
    ],
)
def test_the_first_level_that_attends_sees_fewer_tokens(
    name: str, before: list[int], after: list[int]
) -> None:
    down, up = UNETS[name]
    unet = small(down_block_types=down, up_block_types=up)
    assert seen(unet, 0, 9, 11, 8) == before
    assert seen(unet, 0.5, 9, 11, 8) == after
    assert seen(unet, 0, 9, 11, 8) == before  # it is as it was


def test_a_network_without_self_attention_is_turned_down() -> None:
    unet = small(
        down_block_types=(PLAIN,) * 3, up_block_types=("UpBlock2D",) * 3, mid_block_type="UNetMidBlock2D"
    )
    with pytest.raises(CellFailed, match="token_merging_ratio: this network has no self-attention"):
        seen(unet, 0.5, 8, 8, 8)


@torch.inference_mode()
def test_the_network_is_as_it_was_also_after_a_mistake(networks: Networks) -> None:
    before = dict(networks.unet.attn_processors)
    given_inputs = inputs(8, 8, 7)
    with pytest.raises(RuntimeError), tokens_merged(networks.unet, 0.5, given_inputs[0]):
        networks.unet(*given_inputs, return_dict=False)
    assert networks.unet.attn_processors == before
