from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from farm.errors import CellFailed
from farm.weights.vae import load_vae
from tests.weights.original_files import Tiny, original_vae
from tests.weights.test_recognition import DOWN

CPU = torch.device("cpu")


def in_its_own_file(vae: Any, path: Path) -> None:
    save_file(original_vae(vae), path)


def as_a_checkpoint_has_it(vae: Any, path: Path) -> None:
    save_file({f"first_stage_model.{name}": tensor for name, tensor in original_vae(vae).items()}, path)


def as_lightning_writes_it(vae: Any, path: Path) -> None:
    others = {"loss.logvar": torch.tensor(0.0)}
    torch.save({"state_dict": original_vae(vae) | others, "global_step": 1}, path)


def as_diffusers_writes_it(vae: Any, path: Path) -> None:
    save_file(vae.state_dict(), path)


def as_diffusers_wrote_it_at_first(vae: Any, path: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = vae.state_dict()
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): tensor for key, tensor in state.items()}
    assert any("proj_attn" in name for name in state)
    save_file(state, path)


def as_a_folder(vae: Any, path: Path) -> None:
    vae.save_pretrained(path)


WRITERS = [
    in_its_own_file, as_a_checkpoint_has_it, as_lightning_writes_it, as_diffusers_writes_it,
    as_diffusers_wrote_it_at_first, as_a_folder,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_a_vae_is_the_one_that_was_written(write: Any, sd1: Tiny, tmp_path: Path) -> None:
    write(sd1.vae, tmp_path / "fine")
    vae = load_vae(tmp_path / "fine", 0.5, CPU, torch.float32)
    state, wanted = vae.state_dict(), sd1.vae.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert vae.config.scaling_factor == 0.5 and not vae.training
    latents = torch.randn(1, 4, 8, 8)
    assert torch.equal(vae.decode(latents).sample, sd1.vae.decode(latents).sample)


def test_the_type_is_as_asked(sd1: Tiny, tmp_path: Path) -> None:
    in_its_own_file(sd1.vae, tmp_path / "fine")
    assert load_vae(tmp_path / "fine", 0.5, CPU, torch.bfloat16).dtype == torch.bfloat16


def test_what_is_no_vae_is_called_by_its_name(sd1: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_file({DOWN: torch.zeros(4, 768)}, path)
    assert refused(path) == f"VAE {path}: it is a LoRA, and no VAE"
    save_file({"weight": torch.zeros(3), "bias": torch.zeros(3)}, path)
    assert refused(path) == f"VAE {path}: it is something else, and no VAE"
    in_its_own_file(sd1.vae, path)
    state = load_file(path)
    save_file({name: tensor for name, tensor in state.items() if name != "decoder.mid.attn_1.q.bias"}, path)
    lacks = "its VAE lacks 1 tensors, decoder.mid_block.attentions.0.to_q.bias among them"
    assert refused(path) == f"VAE {path}: {lacks}"


def test_latents_of_other_networks_are_refused(tmp_path: Path) -> None:
    deep = AutoencoderKL(
        block_out_channels=(32, 32), latent_channels=16, down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip
    in_its_own_file(deep, tmp_path / "a")
    said = (
        "its latents have 16 channels and 1/2 of a picture's sides; those of Stable Diffusion have 4 and 1/8"
    )
    assert refused(tmp_path / "a") == f"VAE {tmp_path / 'a'}: {said}"


def test_a_folder_without_weights_gives_one_line(sd1: Tiny, tmp_path: Path) -> None:
    sd1.vae.save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "diffusion_pytorch_model.safetensors").unlink()
    assert "there is no diffusion_pytorch_model.safetensors in it" in refused(tmp_path / "a")


def refused(path: Path) -> str:
    with pytest.raises(CellFailed) as error:
        load_vae(path, 0.5, CPU, torch.float32)
    assert "\n" not in str(error.value)
    return str(error.value)
