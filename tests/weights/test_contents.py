from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from farm.weights.contents import BadFile, TensorInfo, read_contents

STATE = {
    "half": torch.ones(3, 4, dtype=torch.float16),
    "brain": torch.zeros(2, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "flag": torch.tensor([True]),
    "empty": torch.empty(0, 3),
    "turned": torch.ones(2, 5).t(),
    "eight": torch.ones(4).to(torch.float8_e4m3fn),
}
SAID = {
    "half": TensorInfo("float16", (3, 4)),
    "brain": TensorInfo("bfloat16", (2,)),
    "count": TensorInfo("int64", ()),
    "flag": TensorInfo("bool", (1,)),
    "empty": TensorInfo("float32", (0, 3)),
    "turned": TensorInfo("float32", (5, 2)),
    "eight": TensorInfo("float8_e4m3fn", (4,)),
}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_says_what_is_in_it(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"  # what it is stands in the file, not in its name
    torch.save(
        {"state_dict": OrderedDict(STATE), "epoch": 3, "rate": 0.5, "name": "é", "parts": [None, (True, -1)]},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    contents = read_contents(path)
    assert contents.tensors == SAID and contents.metadata == {}
    assert contents.tree == {
        "state_dict": SAID,
        "epoch": 3,
        "rate": 0.5,
        "name": "é",
        "parts": [None, (True, -1)],
    }


def test_a_safetensors_file_says_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    tensors = {name: tensor.contiguous() for name, tensor in STATE.items()}
    save_file(tensors, path, metadata={"ss_network_dim": "4", "title": "é"})
    contents = read_contents(path)
    assert contents.tensors == contents.tree == SAID
    assert contents.metadata == {"ss_network_dim": "4", "title": "é"}


def test_a_bare_tensor_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.ones(1, 768), tmp_path / "aesthetic.pt")
    contents = read_contents(tmp_path / "aesthetic.pt")
    assert contents.tree == TensorInfo("float32", (1, 768)) and contents.tensors == {}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"GIF89a", "it is neither a safetensors file nor one of torch.save"),
        (b"<!DOCTYPE html><html>", "it is a web page: the download went wrong"),
        (b"version https://git-lfs.github.com/spec/v1", "it is a pointer of Git LFS, not the file itself"),
    ],
)
def test_what_is_no_weights_file_is_said_in_one_line(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadFile) as error:
        read_contents(path)
    assert str(error.value).startswith(f"{path}: {what}") and "\n" not in str(error.value)
