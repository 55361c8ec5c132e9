import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from farm.errors import CellFailed
from farm.weights.loading import load_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "cats"
    shutil.copytree(tiny_model, folder, copy_function=shutil.copyfile)
    for each in [folder, *folder.rglob("*")]:
        each.chmod(0o755)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_networks_are_the_files_in_the_type_asked_and_nothing_is_said(
    dtype: torch.dtype, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    level = logging.getLogger("diffusers").level
    networks = load_checkpoint(tiny_model, CPU, dtype)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("diffusers").level == level
    files = load_file(tiny_model / "unet" / "diffusion_pytorch_model.safetensors")
    state = networks.unet.state_dict()
    assert state.keys() == files.keys()
    assert all(torch.equal(state[name], tensor.to(dtype)) for name, tensor in files.items())
    for network in (networks.unet, networks.vae, networks.text_encoder):
        assert network.dtype == dtype and not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("pipeline", ["StableDiffusionXLImg2ImgPipeline", "FluxPipeline"])
def test_other_pipelines_are_refused(pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    with pytest.raises(CellFailed) as error:
        load_checkpoint(tmp_path, CPU, torch.float32)
    assert str(error.value) == (
        f"checkpoint {tmp_path} is a {pipeline}, which is not supported; StableDiffusionPipeline, "
        "StableDiffusionXLPipeline, StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline are"
    )


MISSING = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer",
    "text_encoder/model.safetensors",
    "vae/config.json",
]


@pytest.mark.parametrize(
    ("file", "torn"),
    [*((file, False) for file in MISSING), ("model_index.json", True), ("vae/config.json", True),
     ("text_encoder/model.safetensors", True)],
)  # fmt: skip
def test_a_file_that_is_missing_or_torn_gives_one_line(
    file: str, torn: bool, copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if torn:
        (copy / file).write_bytes((copy / file).read_bytes()[:100])
    elif (copy / file).is_dir():
        shutil.rmtree(copy / file)
    else:
        (copy / file).unlink()
    refused(copy, capfd)


def refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(CellFailed) as error:
        load_checkpoint(folder, CPU, torch.float32)
    assert str(error.value).startswith(f"checkpoint {folder} cannot be loaded: ")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    return str(error.value)


@pytest.mark.parametrize(
    "file", ["text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"]
)
def test_tensors_that_are_missing_are_not_made_up(
    file: str, copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(copy / file)
    lost = sorted(tensors)[3]
    del tensors[lost]
    save_file(tensors, copy / file, metadata={"format": "pt"})
    assert lost.split(".")[-3:] == refused(copy, capfd).split()[-3].split(".")[-3:]
