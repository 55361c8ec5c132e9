import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from farm.errors import CellFailed
from farm.weights.loading import load_checkpoint
from tests.weights.original_files import Tiny, original, tiny, write

pytestmark = pytest.mark.slow  # there are many of them, on networks of several kinds

CPU = torch.device("cpu")


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_networks_are_those_that_were_written(
    family: str, dtype: torch.dtype, suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    made = tiny(family)
    networks = load_checkpoint(write(made, tmp_path / f"a.{suffix}", dtype), CPU, dtype)
    same(networks.unet, made.unet, dtype)
    same(networks.vae, made.vae, dtype)
    for encoder, written in zip(networks.text_encoders, made.text_encoders, strict=True):
        same(encoder, written, dtype)
    padding = {"sd1": ["<|endoftext|>"], "sd2": ["!"], "sdxl": ["<|endoftext|>", "!"]}
    assert [tokenizer.pad_token for tokenizer in networks.tokenizers] == padding[family]
    assert capfd.readouterr() == ("", "")


def forbidden(*_: Any) -> None:
    raise AssertionError("nothing is fetched")


def same(ours: Any, theirs: Any, dtype: torch.dtype) -> None:
    mine, wanted = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == wanted.keys()
    assert all(torch.equal(mine[name], wanted[name].to(dtype)) for name in mine)
    assert ours.dtype == dtype and not ours.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert not any(tensor.is_meta for tensor in (*ours.parameters(), *ours.buffers()))


def test_they_answer_as_those_that_were_written(sd1: Tiny, sd1_file: Path) -> None:
    networks = load_checkpoint(sd1_file, CPU, torch.float32)
    torch.manual_seed(0)
    latents, tokens = torch.randn(2, 4, 16, 16), torch.randint(0, 49000, (2, 77))
    states = networks.text_encoder(tokens).last_hidden_state
    assert torch.equal(states, sd1.text_encoders[0](tokens).last_hidden_state)
    ours, theirs = (unet(latents, 500, states).sample for unet in (networks.unet, sd1.unet))
    assert torch.equal(ours, theirs)
    assert torch.equal(networks.vae.decode(latents).sample, sd1.vae.decode(latents).sample)


def test_half_a_file_as_full_networks(sd1: Tiny, tmp_path: Path) -> None:
    networks = load_checkpoint(write(sd1, tmp_path / "a.safetensors", torch.float16), CPU, torch.float32)
    weight = networks.unet.conv_in.weight
    assert weight.dtype == torch.float32 and torch.equal(weight, sd1.unet.conv_in.weight.half().float())


def test_weights_of_training_are_left_alone(sd1: Tiny, tmp_path: Path) -> None:
    state = original(sd1)
    averages = {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": tensor + 1
        for name, tensor in state.items()
        if name.startswith("model.diffusion_model.")
    }
    others = {"model_ema.decay": torch.tensor(0.9999), "first_stage_model.loss.logvar": torch.tensor(0.0)}
    save_file(state | averages | others, tmp_path / "a.safetensors")
    networks = load_checkpoint(tmp_path / "a.safetensors", CPU, torch.float32)
    same(networks.unet, sd1.unet, torch.float32)


def test_tensors_that_are_missing_or_unknown_are_named(sd1_file: Path, tmp_path: Path) -> None:
    state = load_file(sd1_file)
    lost = "model.diffusion_model.output_blocks.0.0.out_layers.3.bias"
    cases = {
        "its UNet lacks 1 tensors, up_blocks.0.resnets.0.conv2.bias among them": without(state, lost),
        "1 tensors of its UNet have no place in it, up_blocks.0.resnets.0.out_layers.9.bias among them": {
            **state, lost.replace(".3.", ".9."): state[lost].clone(),
        },
        "tensor conv_out.bias of its UNet is torch.int8, not numbers with fractions": {
            **state, "model.diffusion_model.out.2.bias": torch.zeros(4, dtype=torch.int8),
        },
        "tensor conv_out.bias of its UNet has the shape [5], not [4]": {
            **state, "model.diffusion_model.out.2.bias": torch.zeros(5),
        },
        "it has no VAE": {name: value for name, value in state.items() if "first_stage" not in name},
    }  # fmt: skip
    for number, (fault, changed) in enumerate(cases.items()):
        path = tmp_path / f"{number}.safetensors"
        save_file(changed, path)
        with pytest.raises(CellFailed) as error:
            load_checkpoint(path, CPU, torch.float32)
        assert str(error.value) == f"checkpoint {path}: {fault}"


def without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {other: tensor for other, tensor in state.items() if other != name}


def test_a_torn_file_gives_one_line(sd1_file: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.safetensors"
    shutil.copyfile(sd1_file, torn)
    with torn.open("rb+") as file:
        file.truncate(sd1_file.stat().st_size - 100)
    with pytest.raises(CellFailed, match="it is torn") as error:
        load_checkpoint(torn, CPU, torch.float32)
    assert "\n" not in str(error.value)
