import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from farm.weights.architecture import BIAS_OF_SD2, architecture_in, architecture_of
from farm.weights.contents import BadFile, Contents, TensorInfo
from farm.weights.original_layout import NotThisLayout, unet_config, vae_config
from tests.weights.original_files import Tiny, original, original_unet, original_vae, tiny, write

# what the folders of the releases say, where it differs from what diffusers assumes
CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
RELEASES: Mapping[str, dict[str, Any]] = {
    "1.5": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "1.5 inpainting": {"cross_attention_dim": 768, "attention_head_dim": 8, "in_channels": 9},
    "2.1": {
        "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True
    },
    "XL": {
        "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "use_linear_projection": True,
        "block_out_channels": [320, 640, 1280], "down_block_types": [PLAIN, CROSS, CROSS],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
    },
}  # fmt: skip


@pytest.mark.parametrize("release", RELEASES)
def test_the_unets_of_the_releases_are_told_from_their_shapes(release: str) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**RELEASES[release])
    config = unet_config(headers(original_unet(unet), "model.diffusion_model."))
    theirs = dict(unet.config)
    assert config == {name: listed(theirs[name]) for name in config}
    with torch.device("meta"):
        ours = UNet2DConditionModel(**config)
    assert shapes(ours) == shapes(unet)
    named = [name for name in theirs if not name.startswith("_")]
    assert {name: listed(ours.config[name]) for name in named} == {
        name: listed(theirs[name]) for name in named
    }


def test_the_vae_of_the_releases_is_told_from_its_shapes() -> None:
    channels = [128, 256, 512, 512]
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=channels, layers_per_block=2, down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
        )  # fmt: skip
    config = vae_config(headers(original_vae(vae).items(), "first_stage_model."))
    assert config == {name: listed(vae.config[name]) for name in config}
    assert shapes(AutoencoderKL(**config)) == shapes(vae)


def headers(named: Any, prefix: str) -> dict[str, TensorInfo]:
    return {prefix + name: TensorInfo("float16", tuple(tensor.shape)) for name, tensor in named}


def listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def shapes(network: Any) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
@pytest.mark.parametrize(("family", "layers"), [("sd1", [3]), ("sd2", [3]), ("sdxl", [3, 3])])
def test_families_are_told_apart(family: str, layers: list[int], suffix: str, tmp_path: Path) -> None:
    found = architecture_of(write(tiny(family), tmp_path / f"a.{suffix}", torch.float16))
    assert found.family == found.variant == family  # a small SD 2 does not tell what it predicts
    assert [encoder.config["num_hidden_layers"] for encoder in found.text_encoders] == layers
    assert found.scaling_factor == (0.13025 if family == "sdxl" else 0.18215)
    if family == "sdxl":
        assert found.unet["addition_time_embed_dim"] == 32


def test_early_files_have_no_text_model_in_their_names(sd1: Tiny, sd1_file: Path, tmp_path: Path) -> None:
    state = {name.replace(".text_model.", "."): tensor for name, tensor in original(sd1).items()}
    save_file(state, tmp_path / "early.safetensors")
    early = architecture_of(tmp_path / "early.safetensors")
    assert early.text_encoders[0].config == architecture_of(sd1_file).text_encoders[0].config


def test_nine_channels_are_those_of_inpainting(tmp_path: Path) -> None:
    found = architecture_of(write(tiny("sd1", in_channels=9), tmp_path / "a.safetensors"))
    assert found.variant == "sd1-inpainting"


def test_the_yaml_beside_a_file_is_honoured(sd2_file: Path) -> None:
    yaml = sd2_file.with_suffix(".yaml")
    said = """
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: "v"
    linear_start: 0.001
    linear_end: 0.02
    timesteps: 500
    scale_factor: 0.5
    unet_config:
      params: {num_heads: -1, num_head_channels: 32}
"""
    yaml.write_text(said)
    try:
        found = architecture_of(sd2_file)
    finally:
        yaml.unlink()
    assert found.variant == "sd2-v" and found.scaling_factor == 0.5
    assert found.unet["attention_head_dim"] == [2, 4] and found.unet["upcast_attention"] is True
    wanted = {
        "prediction_type": "v_prediction", "beta_start": 0.001, "beta_end": 0.02, "num_train_timesteps": 500
    }  # fmt: skip
    assert {name: found.scheduler[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("model: {params: {parameterization: x0}}", "parameterization x0 is not supported; eps and v are"),
        ("model: {params: {linear_start: soon}}", "linear_start: 'soon' is not a number above 0"),
        ("model: {params: {timesteps: 1.5}}", "timesteps: 1.5 is not a whole number"),
        ("model: [", ".yaml:"),
    ],
)
def test_a_yaml_that_is_wrong_is_no_riddle(said: str, fault: str, sd1_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cats.safetensors"
    path.symlink_to(sd1_file)
    path.with_suffix(".yaml").write_text(said)
    with pytest.raises(BadFile, match=fault) as error:
        architecture_of(path)
    assert str(path.with_suffix(".yaml")) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("spread", "variant"), [(0.2, "sd2-v"), (0.05, "sd2-eps")])
def test_stability_s_releases_of_sd2_tell_what_they_predict(
    spread: float, variant: str, dtype: torch.dtype, sd2: Tiny, tmp_path: Path
) -> None:
    state = original(sd2)
    state[BIAS_OF_SD2] = (torch.randn(320) * spread).to(dtype)
    save_file(state, tmp_path / "a.safetensors")
    assert architecture_of(tmp_path / "a.safetensors").variant == variant


def test_markers_of_trainers_say_that_v_is_predicted(sdxl: Tiny, tmp_path: Path) -> None:
    state = original(sdxl, torch.float16) | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file(state, tmp_path / "a.safetensors")
    found = architecture_of(tmp_path / "a.safetensors")
    assert found.variant == "sdxl-v" and found.scheduler["rescale_betas_zero_snr"] is True


OTHERS = {
    "edm_mean": "it is a checkpoint of Playground 2.5, which is not supported",
    "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": "it is a checkpoint of Stable Diff",
    "model.diffusion_model.input_blocks.0.0.weight": "it has a UNet, but no text encoder",
    "lora_unet_mid.lora_down.weight": "it is no checkpoint of Stable Diffusion 1.x, 2.x or XL",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_called_by_their_names(name: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(2, 4, 3, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(BadFile) as error:
        architecture_of(tmp_path / "a.safetensors")
    assert str(error.value).startswith(f"{tmp_path / 'a.safetensors'}: {OTHERS[name]}")


def test_whatever_is_missing_or_of_another_shape_gives_one_line(sd1_file: Path) -> None:
    header = {
        name: TensorInfo("float32", tuple(tensor.shape)) for name, tensor in load_file(sd1_file).items()
    }
    refused = 0
    for name in header:
        for changed in (None, (), (1,), (7, 3, 5), (2,) * 5):
            tree = dict(header)
            if changed is None:
                del tree[name]
            else:
                tree[name] = TensorInfo("float32", changed)
            try:
                json.dumps(architecture_in(Contents(tree), sd1_file).unet)
            except NotThisLayout as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 20
