import os
import subprocess
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from farm.errors import FarmError
from farm.weights.contents import BadFile, Inert, TensorInfo, read_contents
from farm.weights.reading import convert, read_object, read_tensors
from tests.weights.torch_files import text

pytestmark = pytest.mark.filterwarnings("error")


def state(with_float8: bool = True) -> dict[str, torch.Tensor]:
    """Of many types; torch cannot read back those of 8 bits in its old format."""
    draw = torch.Generator().manual_seed(3)
    found = {
        "half": torch.randn(3, 4, generator=draw).half(),
        "brain": torch.randn(5, generator=draw).bfloat16(),
        "turned": torch.randn(2, 5, generator=draw).t(),
        "count": torch.tensor(7),
        "flag": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "eight": torch.randn(4, generator=draw).to(torch.float8_e4m3fn),
    }
    return found if with_float8 else {name: found[name] for name in found if name != "eight"}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    def bits(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous().view(torch.uint8) if tensor.dim() else tensor

    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and torch.equal(bits(one[name]), bits(other[name]))
        for name in one
    )


def is_mapped(tensor: torch.Tensor, path: Path) -> bool:
    """Whether the numbers lie in the file itself."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(place, 16) for place in line.split()[0].split("-"))
        if begin <= tensor.data_ptr() < end:
            return line.endswith(str(path))
    return False


@contextmanager
def lightning() -> Iterator[Any]:
    """A class of Lightning's name, to write files with; gone before they are read."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    made = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = made  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for part in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            patch.setitem(sys.modules, part, types.ModuleType(part))
        patch.setitem(sys.modules, module.__name__, module)
        yield made


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_torch_come_back_bit_by_bit(wrapped: bool, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    tensors = OrderedDict(state(zipped))
    tree = {"state_dict": tensors, "epoch": 3} if wrapped else tensors
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    found = read_tensors(path)
    assert equal(found, tensors) and type(found) is dict
    said = read_contents(path).tensors
    assert said == {name: TensorInfo(str(t.dtype)[6:], tuple(t.shape)) for name, t in found.items()}


def test_tensors_of_safetensors_come_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in state().items()}
    save_file(tensors, tmp_path / "model.ckpt")
    assert equal(read_tensors(tmp_path / "model.ckpt"), tensors)
    assert equal(read_object(tmp_path / "model.ckpt"), tensors)


@pytest.mark.skipif(sys.platform != "linux", reason="what is mapped is told by Linux")
def test_files_are_mapped_and_not_changed_by_those_who_use_them(tmp_path: Path) -> None:
    large = {"weight": torch.ones(100_000)}
    torch.save(large, tmp_path / "model.ckpt")
    save_file(large, tmp_path / "model.safetensors")
    for path in (tmp_path / "model.ckpt", tmp_path / "model.safetensors"):
        before = path.read_bytes()
        weight = read_tensors(path)["weight"]
        assert is_mapped(weight, path)
        weight.zero_()
        assert path.read_bytes() == before


def test_only_tensors_are_read_as_tensors(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2), "step": 7, 768: torch.ones(1), "more": [1]}, tmp_path / "lora.pt")
    assert set(read_tensors(tmp_path / "lora.pt")) == {"weight"}


@pytest.mark.parametrize("tree", [{}, {"a": 1}, [torch.ones(1)], torch.ones(1), {"state_dict": {"a": 1}}])
def test_what_has_no_tensors_by_name_is_said(tree: Any, tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "model.pt")
    with pytest.raises(BadFile, match=r"model\.pt: it has no tensors by name$"):
        read_tensors(tmp_path / "model.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_the_state_of_a_module_is_read(zipped: bool, tmp_path: Path) -> None:
    """Which has attributes of its own beside the tensors."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    assert vars(module.state_dict())
    torch.save(module.state_dict(), tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    assert equal(read_tensors(tmp_path / "model.pt"), module.state_dict())


def test_an_embedding_of_a1111_is_read_whole(tmp_path: Path) -> None:
    vector = torch.randn(2, 768)
    tree = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.nn.Parameter(vector)},
        "name": "cat",
        "step": 2999,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }
    path = tmp_path / "cat.pt"
    torch.save(tree, path)
    found = read_object(path)
    assert type(found["string_to_param"]["*"]) is torch.Tensor
    assert not found["string_to_param"]["*"].requires_grad
    assert torch.equal(found["string_to_param"].pop("*"), vector)
    assert found == {**tree, "string_to_param": {}}


def old_parameter_dict(**parameters: torch.Tensor) -> torch.nn.ParameterDict:
    """With the state that torch gave them in 2022: an OrderedDict, and no keys beside it."""
    made = torch.nn.ParameterDict({key: torch.nn.Parameter(value) for key, value in parameters.items()})
    state = made.__dict__
    state["_parameters"] = OrderedDict(state["_parameters"])
    state.pop("_keys", None)
    return made


@pytest.mark.parametrize("make", [lambda **tensors: torch.nn.ParameterDict(tensors), old_parameter_dict])
def test_a_first_textual_inversion_holds_its_vectors_in_a_parameter_dict(make: Any, tmp_path: Path) -> None:
    vector = torch.randn(1, 768)
    torch.save({"string_to_token": {}, "string_to_param": make(**{"cat": vector})}, tmp_path / "cat.pt")
    contents = read_contents(tmp_path / "cat.pt")
    assert contents.tree["string_to_param"] == {"cat": TensorInfo("float32", (1, 768))}
    found = read_object(tmp_path / "cat.pt")
    assert type(found["string_to_param"]) is dict
    assert torch.equal(found["string_to_param"]["cat"], vector)


def test_a_hypernetwork_is_read_whole(tmp_path: Path) -> None:
    layers = OrderedDict({"linear.0.weight": torch.randn(4, 2), "linear.0.bias": torch.randn(4)})
    tree = {
        768: (layers, layers),
        "layer_structure": [1.0, 2.0, 1.0],
        "activation_func": "linear",
        "is_layer_norm": False,
    }
    torch.save(tree, tmp_path / "ink.pt")
    found = read_object(tmp_path / "ink.pt")
    keys, values = found.pop(768)
    assert equal(keys, layers) and equal(values, layers)
    assert found == {"layer_structure": [1.0, 2.0, 1.0], "activation_func": "linear", "is_layer_norm": False}
    assert read_contents(tmp_path / "ink.pt").tree[768][1]["linear.0.weight"] == TensorInfo("float32", (4, 2))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_lightning_is_read_without_lightning(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    with lightning() as callback:
        made = callback()
        made.best = "/home/somebody/last.ckpt"
        tree = {
            "epoch": 4,
            "global_step": 470_000,
            "pytorch-lightning_version": "1.4.2",
            "state_dict": OrderedDict(state(zipped)),
            "callbacks": {callback: {"best_model_score": np.float32(0.25), "monitor": None}},
            "callback": made,
            "lr_schedulers": [{"last_lr": [np.float64(1e-4)], "seen": {1, 2}, "dtype": torch.float16}],
        }
        torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    assert equal(read_tensors(path), state(zipped))
    inert = Inert("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    expected = {
        "callbacks": {inert: {"best_model_score": 0.25, "monitor": None}},
        "callback": inert,
        "lr_schedulers": [{"last_lr": [1e-4], "seen": [1, 2], "dtype": Inert("torch.float16")}],
    }
    for found in (read_object(path), read_contents(path).tree):
        assert {name: found[name] for name in expected} == expected
    assert not any(name.startswith("pytorch_lightning") for name in sys.modules)


@pytest.mark.parametrize("kind", ["bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
                                  "uint64", "float16", "float32", "float64"])  # fmt: skip
@pytest.mark.parametrize("module", ["numpy._core.multiarray", "numpy.core.multiarray"])
def test_numbers_of_numpy_become_those_of_python(kind: str, module: str, tmp_path: Path) -> None:
    number = getattr(np, kind)(1.5)
    path = tmp_path / "model.pt"
    torch.save({"number": number, "weight": torch.ones(1)}, path)
    renamed(path, b"numpy._core.multiarray", module.encode())
    for found in (read_object(path), read_contents(path).tree):
        assert found["number"] == number.item() and type(found["number"]) is type(number.item())


def renamed(path: Path, before: bytes, after: bytes) -> None:
    """The file with a name in its pickle replaced, written again by torch."""
    content = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl").replace(before, after)
    assert after in content
    writer = torch._C.PyTorchFileWriter(str(path))
    writer.write_record("data.pkl", content, len(content))
    one = torch.ones(1).numpy().tobytes()
    writer.write_record("data/0", one, len(one))
    writer.write_end_of_file()


def test_a_big_endian_number_of_numpy_is_read_as_that(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"number": np.float64(1.5), "weight": torch.ones(1)}, path)
    renamed(path, text("<"), text(">"))
    swapped = np.float64(1.5).byteswap().item()
    assert read_object(path)["number"] == read_contents(path).tree["number"] == swapped != 1.5


def test_what_the_process_allows_torch_to_load_stays_as_it_was(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pt")
    before = sorted(map(repr, torch.serialization.get_safe_globals()))  # it keeps a set, in no order
    read_tensors(tmp_path / "model.pt")
    assert sorted(map(repr, torch.serialization.get_safe_globals())) == before


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    with lightning() as callback:
        torch.save({"state_dict": state(), "callbacks": {callback: 1}}, tmp_path / "model.ckpt")
    found: list[dict[str, torch.Tensor]] = []
    threads = [
        threading.Thread(
            target=lambda: found.extend(read_tensors(tmp_path / "model.ckpt") for _ in range(20))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80 and all(equal(one, state()) for one in found)


@pytest.mark.parametrize("suffix", [".ckpt", ".old", ".safetensors"])
def test_a_torn_file_is_found_before_it_is_mapped(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    large = {"weight": torch.ones(50_000)}
    if suffix == ".safetensors":
        save_file(large, path)
    else:
        torch.save(large, path, _use_new_zipfile_serialization=suffix == ".ckpt")
    whole = path.read_bytes()
    for length in (1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        for read in (read_tensors, read_object, read_contents):
            with pytest.raises(BadFile) as error:
                read(path)
            assert str(error.value).startswith(f"{path}: ")


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name, what in {
        "absent.pt": "it cannot be read: No such file or directory",
        ".": "it is not a file",
        "pipe": "it is not a file",
        "loop": "it cannot be read: Too many levels of symbolic links",
        "a\0b": "it cannot be read: embedded null byte",
        "x" * 300: "it cannot be read: File name too long",
    }.items():
        for read in (read_contents, read_tensors, read_object):
            with pytest.raises(BadFile) as error:
                read(tmp_path / name)
            assert what in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_ours_to_read_is_said(tmp_path: Path) -> None:
    """As another user, since the first one may read everything."""
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(1)}, path)
    path.chmod(0)
    code = (
        "import os, sys; from pathlib import Path; from farm.weights.contents import BadFile, read_contents\n"
        "if os.getuid() == 0: os.seteuid(65534)\n"
        "try: read_contents(Path(sys.argv[1]))\n"
        "except BadFile as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"{path}: it cannot be read: Permission denied\n"


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_converted(zipped: bool, tmp_path: Path) -> None:
    source, target = tmp_path / "model.ckpt", tmp_path / "model.safetensors"
    torch.save(
        {"state_dict": state(zipped), "epoch": 4, "global_step": 470_000, "loss": 0.5},
        source,
        _use_new_zipfile_serialization=zipped,
    )
    before = source.read_bytes()
    convert(source, target)
    assert equal(load_file(target), state(zipped))
    origin = {"format": "pt", "converted_from": "model.ckpt", "epoch": "4", "global_step": "470000"}
    assert metadata(target) == origin and read_contents(target).metadata == origin
    assert source.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["model.ckpt", "model.safetensors"]


def test_shared_numbers_are_converted_to_copies(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    tensors = {
        "all": base,
        "again": base,
        "part": base[3:6],
        "turned": base.view(3, 4).t(),
        "empty": base[:0],
        "nothing": torch.empty(0),
        "number": base[4],
    }
    torch.save(tensors, tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "model.safetensors")
    assert equal(load_file(tmp_path / "model.safetensors"), tensors)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "model.pt")
    target = tmp_path / "model.safetensors"
    for make in (lambda: target.write_text("mine"), lambda: target.symlink_to("absent")):
        make()
        with pytest.raises(FarmError, match=r"model\.safetensors: it is there already"):
            convert(tmp_path / "model.pt", target)
        assert target.is_symlink() or target.read_text() == "mine"
        target.unlink()


@pytest.mark.parametrize(
    ("tree", "what"),
    [
        (
            {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(1)}},
            "'string_to_token' is none",
        ),
        ({"state_dict": {"weight": torch.ones(1), "step": 3}}, "'step' is none"),
        ({768: (torch.ones(1), torch.ones(1))}, "can hold"),
        (torch.ones(1), "can hold"),
        ({}, "can hold"),
    ],
)
def test_what_is_no_dict_of_tensors_is_not_converted(tree: Any, what: str, tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "model.pt")
    with pytest.raises(BadFile) as error:
        convert(tmp_path / "model.pt", tmp_path / "model.safetensors")
    assert "it is not a dict of tensors" in str(error.value) and str(error.value).endswith(what)
    assert os.listdir(tmp_path) == ["model.pt"]


def test_safetensors_are_not_converted_again(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(1)}, tmp_path / "model.ckpt")
    with pytest.raises(BadFile, match="it is a safetensors file already"):
        convert(tmp_path / "model.ckpt", tmp_path / "model.safetensors")


def test_what_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state(), tmp_path / "model.pt")
    with pytest.raises(FarmError, match=r"absent/model\.safetensors: it cannot be written: "):
        convert(tmp_path / "model.pt", tmp_path / "absent" / "model.safetensors")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FarmError, match="No space left on device"):
        convert(tmp_path / "model.pt", tmp_path / "model.safetensors")
    assert os.listdir(tmp_path) == ["model.pt"]
