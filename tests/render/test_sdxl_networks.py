"""What is done to networks, done to those of SDXL: two text encoders, and a UNet that is told more."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModelWithProjection

from farm.errors import CellFailed, FarmError
from farm.prompts.emphasis import weighted
from farm.render.compiled import SEEN, Compiled, plainly
from farm.render.deepcache import shallow_output, with_features
from farm.render.offloading import bytes_of
from farm.render.placement import Placed, Rung
from farm.render.requests import Predict, Weights
from farm.render.token_merging import tokens_merged
from farm.render.told import Conditioning, stacked
from farm.render.tuning import faster
from farm.weights.checkpoint import Networks
from farm.weights.configs import skip_connections_of
from farm.weights.loading import load_checkpoint
from farm.weights.tokenizer import tokenizer_of
from tests.render.rendering import LEVELS, Counting, apart, render
from tests.render.scarce import OnDevice, Scarce
from tests.render.test_compiled import kept  # noqa: F401
from tests.render.test_sdxl import BASE, SWEEP
from tests.render.tiny_sdxl import saved, sdxl_parts, vae

pytestmark = pytest.mark.slow  # there are many of them, on networks of several kinds

CPU = torch.device("cpu")
ROWS = 3


@pytest.fixture
def own(sdxl: Networks) -> Networks:
    """Networks that a test can change."""
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    return replace(sdxl, **{name: copy.deepcopy(getattr(sdxl, name)) for name in parts})


def asked(rows: int = ROWS) -> tuple[torch.Tensor, ...]:
    """Inputs, times, states, pooled texts, sizes."""
    generator = torch.Generator().manual_seed(1)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(rows, *shape, generator=generator)

    sizes = torch.randint(0, 1024, (rows, 6), generator=generator).float()
    return some(4, 8, 8), torch.linspace(20, 990, rows), some(77, 40), some(20), sizes


@torch.inference_mode()
def test_all_that_a_unet_is_told_matters(sdxl: Networks) -> None:
    """Else what follows would show little."""
    given, call = asked(), plainly(sdxl.unet)
    answers = [call(*given[:n], given[n].roll(1, 0), *given[n + 1 :]) for n in range(5)]
    assert all((one - call(*given)).abs().max() > 1e-2 for one in answers)


# Approximations


@pytest.mark.parametrize("ratio", [0, 0.5])
@torch.inference_mode()
def test_with_the_features_of_its_own_input_a_shallow_pass_is_the_full_one(
    ratio: float, sdxl: Networks, sdxl_folder: Path
) -> None:
    inputs, times, states, *added = asked()
    branches = skip_connections_of(sdxl_folder)
    assert branches == 6
    with tokens_merged(sdxl.unet, ratio, inputs):
        whole = plainly(sdxl.unet)(inputs, times, states, *added)
        for branch in range(branches):
            output, features = with_features(sdxl.unet, branch, inputs, times, states, tuple(added))
            deep = torch.stack(features)
            shallow = shallow_output(sdxl.unet, branch, inputs, times, states, deep, tuple(added))
            assert torch.equal(output, whole)
            torch.testing.assert_close(shallow, whole, rtol=0, atol=1e-5)


def test_approximations_beside_each_other_are_what_they_are_alone(sdxl: Networks) -> None:
    cells = [
        BASE,
        replace(BASE, token_merging_ratio=0.5),
        replace(BASE, deepcache_interval=2),
        replace(BASE, deepcache_interval=3, deepcache_branch=2, token_merging_ratio=0.5),
    ]
    together = render(cells, Counting(sdxl))
    alone = [render([one], Counting(sdxl))[0] for one in cells]
    assert max(map(apart, together, alone)) <= LEVELS
    assert min(apart(one, alone[0]) for one in alone[1:]) > LEVELS


# Made faster


@torch.inference_mode()
def test_what_makes_cards_faster_changes_roundings_only(own: Networks, sdxl: Networks) -> None:
    tuned = faster(own)
    assert tuned.text_encoder_2 is own.text_encoder_2
    for one, other in zip(render(SWEEP[:6], Counting(tuned)), render(SWEEP[:6], Counting(sdxl)), strict=True):
        assert apart(one, other) <= LEVELS


@pytest.mark.slow
@torch.inference_mode()
def test_it_is_compiled(sdxl: Networks, kept: Path) -> None:  # noqa: F811
    """Of fewer blocks, which take a minute less."""
    thin = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    thin |= {"block_out_channels": (16,), "transformer_layers_per_block": 1, "attention_head_dim": 4}
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**sdxl.unet.config, **thin}).eval().requires_grad_(False)
    notes: list[str] = []
    compiled, plain, given = Compiled(unet, CPU, notes.append), plainly(unet), asked()
    row = Predict(Weights("m"), given[0][0], 0.0, Conditioning(*(tensor[0] for tensor in given[2:])))
    for _ in range(SEEN + 2):
        torch.testing.assert_close(compiled(*given, full=True), plain(*given), rtol=1e-4, atol=1e-4)
    assert compiled.has(ROWS, row) and notes == []


# Where they lie


@pytest.fixture(scope="module")
def pictures(sdxl: Networks) -> list[np.ndarray]:
    return render(SWEEP[-4:], Counting(sdxl))


@pytest.mark.parametrize("rung", Rung)
def test_pictures_are_the_same_to_the_bit_wherever_the_weights_lie(
    rung: Rung, own: Networks, pictures: list[np.ndarray]
) -> None:
    unet, *others = (
        bytes_of(one.parameters()) for one in (own.unet, own.vae, own.text_encoder, own.text_encoder_2)
    )
    limits = {Rung.WHOLE: unet + sum(others), Rung.VISITING: unet + sum(others) - 1, Rung.STREAMED: unet}
    memory = Scarce(limits[rung])
    with OnDevice(memory):
        again = render(SWEEP[-4:], runner := Counting(own, memory=memory))
    assert all(map(np.array_equal, again, pictures))
    [placed] = [loaded.networks for loaded in runner._checkpoints._loaded.values()]
    assert placed.rung == rung
    assert memory.most <= {Rung.WHOLE: sum(others) + unet}.get(rung, memory.limit)


def test_both_text_encoders_come_and_go_together(own: Networks) -> None:
    total = sum(bytes_of(one.parameters()) for one in (own.unet, own.vae, *own.text_encoders))
    placed = Placed(own, memory := Scarce(total - 1))
    assert placed.rung == Rung.VISITING
    assert [one is other for one, other in zip(placed.text_encoders, own.text_encoders)] == [True, True]
    for encoder in own.text_encoders:
        assert all(memory.at_home.isdisjoint({p.untyped_storage().data_ptr()}) for p in encoder.parameters())
    assert placed.unet is own.unet
    for encoder in own.text_encoders:
        assert all(p.untyped_storage().data_ptr() in memory.at_home for p in encoder.parameters())


# What is refused


def refiner(parts: dict[str, Any]) -> None:
    config = {**parts["unet"].config, "projection_class_embeddings_input_dim": 20 + 5 * 8}
    parts["unet"] = UNet2DConditionModel.from_config(config)


def of_pictures(parts: dict[str, Any]) -> None:
    parts["unet"] = UNet2DConditionModel.from_config({**parts["unet"].config, "in_channels": 8})


def told_otherwise(parts: dict[str, Any]) -> None:
    config = {**parts["unet"].config, "addition_embed_type": "text", "encoder_hid_dim": None}
    parts["unet"] = UNet2DConditionModel.from_config({**config, "cross_attention_dim": 64})


def of_other_latents(parts: dict[str, Any]) -> None:
    parts["vae"] = vae(latents_mean=[1.0] * 4, latents_std=[2.0] * 4)


def of_other_words(parts: dict[str, Any]) -> None:
    parts["tokenizer_2"].add_tokens(["<cat>"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (refiner, "the UNet is not told 6 sizes besides the pooled text, as SDXL's is"),
        (of_pictures, "the UNet takes 8 channels; 4 (as most do) or 9 (for inpainting) are supported"),
        (told_otherwise, "the UNet's addition_embed_type 'text' is not supported"),
        (of_other_latents, "the VAE's latents_mean is not supported; scaling_factor alone is"),
        (of_other_words, "tokenizer and tokenizer_2 do not have the same words"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], None], says: str, tiny_model: Path, tmp_path: Path
) -> None:
    change(parts := sdxl_parts(tiny_model / "tokenizer"))
    saved(tmp_path, parts)
    with pytest.raises(CellFailed) as error:
        load_checkpoint(tmp_path, CPU, torch.float32)
    assert str(error.value).startswith(f"checkpoint {tmp_path} cannot be loaded: {says}")
    assert "\n" not in str(error.value)


def test_networks_are_the_files(sdxl: Networks, sdxl_folder: Path, tiny_model: Path) -> None:
    parts = sdxl_parts(tiny_model / "tokenizer")
    assert isinstance(sdxl.text_encoder_2, CLIPTextModelWithProjection)
    for name in ("text_encoder", "text_encoder_2", "unet", "vae"):
        made, read = parts[name].state_dict(), getattr(sdxl, name).state_dict()
        assert made.keys() == read.keys()
        assert all(torch.equal(made[key], read[key]) for key in made)
    assert sdxl.tokenizer_2.pad_token == "!" != sdxl.tokenizer.pad_token


def test_its_tokenizer_is_known_without_its_networks(sdxl_folder: Path, tmp_path: Path) -> None:
    [chunk] = tokenizer_of(sdxl_folder).chunks(weighted("a ginger cat"))
    assert len(chunk.tokens) == 3
    with pytest.raises(FarmError, match="cannot be read"):
        tokenizer_of(tmp_path)


def test_rows_that_are_told_less_are_stacked_without() -> None:
    states, added = stacked([Conditioning(torch.zeros(77, 8))] * 2)
    assert states.shape == (2, 77, 8) and added == ()
