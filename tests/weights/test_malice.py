"""Files made to deceive: nothing in them runs, whichever way they are read."""

import copyreg
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from farm.weights.contents import BadFile, read_contents
from farm.weights.reading import convert, read_object, read_tensors
from tests.weights.torch_files import (
    ONE,
    called,
    integer,
    legacy_file,
    name,
    storage,
    tensor,
    text,
    whole,
    zip_file,
)

CANARY = "canary"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(path: Path, what: str) -> None:
    """Every way to read the file says the same, and the canary is not there."""
    readers: list[Callable[[Path], Any]] = [
        read_contents,
        read_tensors,
        read_object,
        lambda path: convert(path, path.with_name("converted.safetensors")),
    ]
    for read in readers:
        with pytest.raises(BadFile) as error:
            read(path)
        message = str(error.value)
        assert message.startswith(f"{path}: ") and what in message and "\n" not in message
    assert not Path(CANARY).exists() and not path.with_name("converted.safetensors").exists()


class Runs:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


TOUCH = f"open({CANARY!r}, 'w')"
ATTACKS = {
    "system": (Runs(os.system, f"touch {CANARY}"), "posix.system"),
    "eval": (Runs(eval, TOUCH), "__builtin__.eval"),
    "exec": (Runs(exec, TOUCH), "__builtin__.exec"),
    "open": (Runs(open, CANARY, "w"), "io.open"),
    "getattr": (Runs(getattr, Runs(__import__, "os"), "system"), "__builtin__.getattr"),
    "import": (Runs(__import__, "os"), "__builtin__.__import__"),
    "process": (Runs(subprocess.Popen, ["touch", CANARY]), "commands.Popen"),  # as Python 2 called it
    "nested pickle": (
        Runs(torch.storage._load_from_bytes, pickle.dumps(Runs(eval, TOUCH))),
        "torch.storage._load_from_bytes",
    ),
    "hub": (Runs(torch.hub.load, "/nowhere", "model"), "torch.hub.load"),
    "jit": (Runs(torch.jit.load, "other.pt"), "torch.jit._serialization.load"),
    "torch's own load": (Runs(torch.load, "other.pt"), "torch.serialization.load"),
    "wrapper of types": (
        Runs(torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (TOUCH,), {}),
        "torch._tensor._rebuild_from_type_v2",
    ),
    "attributes": (Runs(setattr, OrderedDict, "items", eval), "__builtin__.setattr"),
}


def test_the_attacks_are_real(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(ATTACKS["system"][0], protocol=2))
    assert Path(CANARY).exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_pickle_wants_to_call_is_named_and_not_called(
    attack: str, zipped: bool, tmp_path: Path
) -> None:
    evil, wanted = ATTACKS[attack]
    path = tmp_path / "model.ckpt"
    tree = {"state_dict": {"weight": torch.ones(2), "evil": evil}}
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    refused(path, f"it wants '{wanted}'")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_bare_pickle_runs_nothing(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "embedding.pt"
    path.write_bytes(pickle.dumps(ATTACKS["system"][0], protocol=protocol))
    refused(path, {2: "it wants 'posix.system'"}.get(protocol, "it"))


EVIL = called(name("posix", "system"), text(f"touch {CANARY}"))
EVIL_CLASS = name("posix", "system")
DICT = b"}" + text("weight")
ORDERED = called(name("collections", "OrderedDict"))
SHAPES = {
    # opcodes that no file of torch.save needs
    "INST": (b"(" + text(f"touch {CANARY}") + b"iposix\nsystem\n", "uses INST"),
    "OBJ": (b"(" + EVIL_CLASS + text(f"touch {CANARY}") + b"o", "it wants 'posix.system'"),
    "STACK_GLOBAL": (text("posix") + text("system") + b"\x93", "uses STACK_GLOBAL"),
    "a computed name": (
        called(name("_codecs", "encode"), text("posix"), text("latin1")) + text("system") + b"\x93",
        "uses STACK_GLOBAL",
    ),
    "EXT1": (b"\x82\x01", "uses EXT1"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "uses EXT4"),
    "PERSID": (b"Pposix.system\n", "uses PERSID"),
    "NEWOBJ_EX": (EVIL_CLASS + b")}\x92", "it wants 'posix.system'"),
    "FRAME": (b"\x95" + b"\xff" * 8, "it"),
    "BUFFER": (b"\x97", "uses NEXT_BUFFER"),
    # names that nearly are those that are allowed
    "a longer name": (name("collections", "OrderedDict.clear"), "it wants 'collections.OrderedDict.clear'"),
    "a space": (name("collections OrderedDict", ""), "it wants"),
    "another split": (name("torch", "_utils._rebuild_tensor_v2"), "it wants"),
    "another module": (name("posixpath", "OrderedDict"), "it wants 'posixpath.OrderedDict'"),
    "an attribute": (name("torch", "serialization.os.system"), "it wants 'torch.serialization.os.system'"),
    # references that are no storages
    "a module": (
        b"(" + text("module") + name("torch.nn.parameter", "ParameterDict") + text("x") + text("x") + b"tQ",
        "refers to what is no storage",
    ),
    "a text for a reference": (text("storage") + b"Q", "refers to what is no storage"),
    "a number for a reference": (b"K\x01Q", "refers to what is no storage"),
    "a storage of no kind": (storage(kind=text("FloatStorage")), "refers to what is no storage"),
    "a storage of a callback": (
        storage(kind=name("pytorch_lightning.callbacks.timer", "Timer")),
        "refers to what is no storage",
    ),
    "a storage of less than nothing": (storage(count=-1), "refers to what is no storage"),
    "a view of a storage": (
        b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x01Nt)\x86Q",
        "refers to what is no storage",
    ),
    # allowed functions with other arguments
    "a storage called": (called(name("torch", "FloatStorage"), integer(10**12)), "calls what is no function"),
    "a type called": (called(name("torch", "float16")), "calls what is no function"),
    "a callback called": (
        called(name("pytorch_lightning.callbacks.timer", "Timer"), text("x")),
        "calls what is no function",
    ),
    "a ParameterDict called": (
        called(name("torch.nn.modules.container", "ParameterDict"), b"}"),
        "calls what is no function",
    ),
    "a function made": (name("_codecs", "encode") + b")\x81", "makes an object of what is no class"),
    "a ParameterDict made of something": (
        name("torch.nn.parameter", "ParameterDict") + b"N\x85\x81",
        "makes an object of what is no class",
    ),
    "a callback made of something": (
        name("pytorch_lightning.callbacks.timer", "Timer") + b"N\x85\x81",
        "makes an object of what is no class",
    ),
    "arguments in a list": (name("collections", "OrderedDict") + b"]R", "calls what is no function"),
    "a decompressor": (
        called(name("_codecs", "encode"), text("x" * 9), text("zlib_codec")),
        "calls encode in a way that is not known",
    ),
    "no bytes": (called(name("_codecs", "encode"), text("日"), text("latin1")), "bytes that are none"),
    "an OrderedDict of a dict": (
        called(name("collections", "OrderedDict"), b"}"),
        "calls OrderedDict in a way that is not known",
    ),
    "an OrderedDict of lists": (
        called(name("collections", "OrderedDict"), b"]]a"),
        "calls OrderedDict in a way that is not known",
    ),
    "a number of numpy from an object": (
        called(
            name("numpy.core.multiarray", "scalar"),
            called(name("numpy", "dtype"), text("O8"), b"\x89\x88"),
            text("x"),
        ),
        "calls scalar in a way that is not known",
    ),
    "a type of numpy that holds objects": (
        called(
            name("numpy._core.multiarray", "scalar"),
            called(name("numpy", "dtype"), text("O8"), b"\x89\x88"),
            called(name("_codecs", "encode"), text("12345678"), text("latin1")),
        ),
        "a number of numpy that is not one of its simple types",
    ),
    "a type of numpy made of a list": (
        called(name("numpy", "dtype"), b"]", b"\x89\x88"),
        "calls dtype in a way that is not known",
    ),
    "a parameter of a parameter's class": (
        called(name("torch._utils", "_rebuild_parameter"), name("torch", "float16"), b"\x88", ORDERED),
        "calls _rebuild_parameter in a way that is not known",
    ),
    "hooks": (
        called(
            name("torch._utils", "_rebuild_parameter"),
            *(tensor(), b"\x88", ORDERED + b"K\x01" + text("hook") + b"s"),
        ),
        "calls _rebuild_parameter in a way that is not known",
    ),
    # changes of what was made
    "attributes of an OrderedDict": (ORDERED + b"}" + text("items") + b"Nsb", "attributes to an OrderedDict"),
    "a class of a dict": (ORDERED + b"}" + text("__class__") + b"Nsb", "attributes to an OrderedDict"),
    "a state for a function": (name("_codecs", "encode") + b"}b", "changes the state of a"),
    "a state for a dict": (b"}}b", "changes the state of a dict"),
    "a state for a tensor": (tensor() + b"(" + storage() + b"K\x00))tb", "changes the state of a TensorInfo"),
    "a ParameterDict of a list": (
        name("torch.nn.parameter", "ParameterDict") + b")\x81}" + text("_parameters") + b"]sb",
        "a ParameterDict in a form that is not known",
    ),
    "a type of numpy in another order": (
        called(name("numpy", "dtype"), text("f8"), b"\x89\x88") + b"(K\x03" + text("@") + b"tb",
        "a type of numpy in a form that is not known",
    ),
    "items of a tensor": (tensor() + b"K\x00K\x07s", "sets items of a TensorInfo"),
    "many items of a tensor": (tensor() + b"(K\x00K\x07u", "sets items of a TensorInfo"),
    "items of a list": (b"]K\x00K\x07s", "sets items of a list"),
    "more for a tensor": (tensor() + b"K\x00a", "appends to a TensorInfo"),
    "more for a dict": (b"}K\x00a", "appends to a dict"),
    "half an item": (b"}(K\x00u", "its pickle is torn"),
    # tensors that reach out of their storages
    "a tensor that is too long": (tensor(shape=(2,)), "larger than its storage 0"),
    "a tensor that begins too late": (tensor(offset=1), "larger than its storage 0"),
    "a tensor that begins too early": (tensor(offset=-1), "no sizes and places"),
    "a stride backwards": (tensor(stride=(-1,)), "no sizes and places"),
    "a tensor of one number many times": (tensor((10**9, 10**9), (0, 0)), "larger than its storage 0"),
    "more sizes than strides": (tensor(shape=(1, 1)), "do not fit together"),
    "a thousand dimensions": (tensor((1,) * 1000, (1,) * 1000), "do not fit together"),
    "a shape of true": (
        called(
            name("torch._utils", "_rebuild_tensor_v2"),
            *(storage(), b"K\x00", b"\x88\x85", b"\x88\x85", b"\x89", ORDERED),
        ),
        "no sizes and places",
    ),
    "more numbers than there are": (tensor((9,), stored=storage(count=9)), "instead of 36"),
    "a storage in two ways": (
        DICT + tensor() + b"s" + text("other") + tensor(stored=storage(count=2)) + b"s",
        "is mentioned in two ways",
    ),
    "a storage of two kinds": (
        DICT + tensor() + b"s" + storage(kind=name("torch", "IntStorage")),
        "is mentioned in two ways",
    ),
    "a storage that is not there": (tensor(stored=storage("1")), "is not there"),
    # values that are not to be walked, or hashed
    "a storage for a value": (storage(), "a Storage where a value should be"),
    "a function for a value": (DICT + name("_codecs", "encode") + b"s", "a Function where a value should be"),
    "itself": (b"]q\x00h\x00a", "contains itself"),
    "itself in a dict": (b"}q\x00" + text("x") + b"]q\x01h\x00as", "contains itself"),
    "doubled": (b"]" + b"q\x00]h\x00ah\x00a" * 200, "holds more than weights do"),
    "doubled tuples": (b")" + b"q\x00h\x00h\x00\x86" * 40, "holds more than weights do"),
    "a key that takes for ever": (b")" + b"q\x00h\x00h\x00\x86" * 40 + b"q\x00}h\x00Ns", "of the type tuple"),
    "a set that takes for ever": (
        b")" + b"q\x00h\x00h\x00\x86" * 40 + b"q\x00" + called(name("__builtin__", "set"), b"]h\x00a"),
        "of the type tuple",
    ),
    "a key that is chosen": (b"}" + integer(2**61 * 2**61) + b"Ns", "of the type int"),
    "deep": (b")" + b"\x85" * 10_000, "holds more than weights do"),
    "deep lists": (b"](" * 10_000 + b"e" * 10_000, "holds more than weights do"),
    "more steps than weights need": (b"N" * 500_001, "more than 500,000 steps"),
    "a text that is none": (b"X\x03\x00\x00\x00\xed\xa0\x80", "a text that is none"),
    "a longer text than there is": (b"X\xff\xff\xff\x7f", "torn"),
    "nothing left": (b"0", "it"),
    "an empty stack": (b"", "is torn"),
    "a memory that is not there": (b"h\x07", "is torn"),
    "a mark that is not there": (b"t", "is torn"),
    "a pair of one": (b"N\x86", "is torn"),
    "another protocol": (b"\x80\x03}", "is of the protocol 3"),
}  # fmt: skip


@pytest.mark.parametrize("write", [zip_file, legacy_file])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_pickle_does_only_what_weights_need(shape: str, write: Callable[..., Path], tmp_path: Path) -> None:
    content, what = SHAPES[shape]
    if write is legacy_file:  # where the counts of storages stand beside them, and not in a directory
        what = {"instead of 36": "is torn", "is not there": "not those that its tensors need"}.get(what, what)
    refused(write(tmp_path / "model.pt", whole(content), **{"0": ONE}), what)


def test_what_was_registered_for_pickles_is_not_used(tmp_path: Path) -> None:
    copyreg.add_extension("posix", "system", 77)
    try:
        content = whole(called(b"\x82\x4d", text(f"touch {CANARY}")))
        refused(zip_file(tmp_path / "model.pt", content), "uses EXT1")
    finally:
        copyreg.remove_extension("posix", "system", 77)


def test_another_pickle_after_the_first_is_never_reached(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "model.pt", whole(DICT, tensor(), b"s") + whole(EVIL), **{"0": ONE})
    assert set(read_tensors(path)) == {"weight"}
    assert not Path(CANARY).exists()


def test_the_pickles_around_the_weights_run_nothing_either(tmp_path: Path) -> None:
    fine = legacy_file(tmp_path / "fine.pt", whole(DICT, tensor(), b"s"), **{"0": ONE}).read_bytes()
    protocol, keys = whole(b"M\xe9\x03"), pickle.dumps(["0"], protocol=2)
    assert fine.count(protocol) == fine.count(keys) == 1
    for piece in (protocol, keys):
        path = tmp_path / "evil.pt"
        path.write_bytes(fine.replace(piece, whole(EVIL)))
        refused(path, "it wants 'posix.system'")


def test_a_tar_of_the_oldest_torch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with tarfile.open(path, "w") as tar:
        for member in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(member)
            content = pickle.dumps(ATTACKS["system"][0], protocol=2)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    refused(path, "it is a tar file")


FINE = whole(DICT, tensor(), b"s")


def python_zip(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "what"),
    [
        ([("a/data.pkl", whole(EVIL))], "it wants 'posix.system'"),
        ([("a/data.pkl", FINE), ("a/data/0", ONE), ("a/data.pkl", whole(EVIL))], "two members 'a/data.pkl'"),
        ([("a/data.pkl", FINE), ("a/data/0", ONE), ("b/data.pkl", whole(EVIL))], "a member 'b/data.pkl'"),
        ([("a/data.pkl", FINE), ("a/data/0", ONE), ("a/constants.pkl", whole(EVIL))], "of TorchScript"),
        ([("a/data.pkl", FINE), ("a/data/0", ONE), ("a/code/__torch__.py", b"")], "of TorchScript"),
        ([("a/data.pkl", FINE), ("a/data/../../0", ONE)], "a member 'a/data/../../0'"),
        ([("data.pkl", FINE), ("data/0", ONE)], "a member 'data.pkl'"),
        ([("/data.pkl/data.pkl", FINE)], "a member '/data.pkl/data.pkl'"),
        ([("a/inner/data.pkl", whole(EVIL))], "a member 'a/inner/data.pkl'"),
        ([("a/data/0", ONE)], "without a data.pkl"),
        ([("a/data.pkl", FINE)], "its storage '0' is not there"),
        ([("a/data.pkl", FINE), ("a/data/0", ONE * 2)], "has 8 bytes instead of 4"),
        ([("a/data.pkl", FINE), ("a/data/0", ONE), ("a/byteorder", b"big")], "its numbers are big-endian"),
        ([], "without"),
    ],
)  # fmt: skip
def test_a_zip_has_only_what_torch_writes(
    members: list[tuple[str, bytes]], what: str, tmp_path: Path
) -> None:
    refused(python_zip(tmp_path / "model.ckpt", members), what if members else "it is neither")


def test_a_program_of_torch_is_not_loaded(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "model.pt"))
    refused(tmp_path / "model.pt", "it is a program of TorchScript")


def test_a_zip_within_a_zip_is_a_storage_and_no_more(tmp_path: Path) -> None:
    inner = zip_file(tmp_path / "inner.pt", whole(EVIL)).read_bytes()
    inner += b"\0" * (-len(inner) % 4)
    stored = storage(count=len(inner) // 4)
    content = whole(DICT, tensor((len(inner) // 4,), stored=stored), b"s")
    path = zip_file(tmp_path / "model.pt", content, **{"0": inner})
    assert read_tensors(path)["weight"].numpy().tobytes() == inner
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("member", ["a/data.pkl", "a/data/0"])
def test_deflated_members_are_refused(member: str, tmp_path: Path) -> None:
    bomb = b"\0" * 10_000_000
    members = [(member, bomb), ("a/data.pkl" if member == "a/data/0" else "a/data/0", FINE)]
    path = python_zip(tmp_path / "model.ckpt", members, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    refused(path, "is deflated or encrypted")


def test_a_zip_with_something_before_it_is_refused(tmp_path: Path) -> None:
    evil = zip_file(tmp_path / "evil.pt", whole(EVIL)).read_bytes()
    fine = zip_file(tmp_path / "fine.pt", FINE, **{"0": ONE}).read_bytes()
    ends = [(b"PK\5\6", b"PK\5\7"), (b"PK\6\6", b"PK\6\7"), (b"PK\6\7", b"PK\6\6")]
    changed = [fine.replace(*end) for end in ends]
    for place in (-98 + 16, -98 + 20, -98 + 24, -2):  # disks, how many entries are on this one, a comment
        changed.append(fine[:place] + b"\7" + fine[place + 1 :])
    moved = (int.from_bytes(fine[-34:-26], "little") + 1).to_bytes(8, "little")
    changed.append(fine[:-98] + b"\0" + fine[-98:-34] + moved + fine[-26:])  # a byte that nobody owns
    for content in (evil + fine, fine + evil, fine + b"\0", fine[:-1], *changed):
        path = tmp_path / "model.pt"
        path.write_bytes(content)
        refused(path, "it is torn")


def changed_directory(content: bytes, member: bytes, place: int, value: bytes) -> bytes:
    """The zip with a field of a member's entry in the directory replaced."""
    entry = content.rindex(member) - 46
    assert content[entry : entry + 4] == b"PK\x01\x02"
    return content[: entry + place] + value + content[entry + place + len(value) :]


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (20, b"\xff\xff\xff\x7f" * 2, "lies within another one"),  # both sizes
        (24, b"\xff\xff\xff\x7f", "is deflated or encrypted"),  # the size without deflating
        (42, b"\x00\x00\x00\x00", "lies within another one"),  # where the member begins
        (42, b"\xff\xff\xff\x7f", "longer than the file"),
        (8, b"\x01", "is deflated or encrypted"),  # the flag of encryption
        (20, b"\xff\xff\xff\xff" * 2, "torn"),  # sizes in an extra field that is not there
        (28, b"\xff\xff", "torn"),  # the length of the name
    ],
)
def test_the_directory_of_a_zip_cannot_lie(place: int, value: bytes, what: str, tmp_path: Path) -> None:
    path = zip_file(tmp_path / "model.pt", FINE, **{"0": ONE})
    path.write_bytes(changed_directory(path.read_bytes(), b"model/data/0", place, value))
    refused(path, what)


def test_a_member_whose_own_header_lies_is_not_loaded(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "model.pt", FINE, **{"0": ONE})
    content = bytearray(path.read_bytes())
    header = content.index(b"model/data/0") - 30
    content[header + 28 : header + 30] = (
        b"\xff\x7f"  # the length of its extra field: numbers would lie outside
    )
    path.write_bytes(content)
    for read in (read_tensors, read_object):
        with pytest.raises(BadFile, match="reaches into the next one"):
            read(path)


def test_many_views_of_one_storage_are_not_written_out(tmp_path: Path) -> None:
    large = torch.zeros(100_000)
    torch.save({str(number): large for number in range(1000)}, tmp_path / "views.ckpt")
    assert len(read_tensors(tmp_path / "views.ckpt")) == 1000
    with pytest.raises(BadFile, match="share"):
        convert(tmp_path / "views.ckpt", tmp_path / "large.safetensors")


def test_an_allowed_name_of_lightning_does_nothing(tmp_path: Path) -> None:
    callback = name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    state = b"}" + text("__class__") + b"N" + b"s" + text("__setstate__") + text(TOUCH) + b"s"
    content = whole(DICT, tensor(), b"s", text("callback"), callback, b")\x81", state, b"bs")
    path = zip_file(tmp_path / "model.ckpt", content, **{"0": ONE})
    assert set(read_tensors(path)) == {"weight"}
    assert str(read_object(path)["callback"]).count("ModelCheckpoint") == 1
    assert not Path(CANARY).exists() and "pytorch_lightning" not in sys.modules


def test_a_safetensors_file_is_never_unpickled(tmp_path: Path) -> None:
    save_file({"weight": torch.frombuffer(bytearray(whole(EVIL)), dtype=torch.uint8)}, tmp_path / "model.pt")
    assert read_tensors(tmp_path / "model.pt")["weight"].numpy().tobytes() == whole(EVIL)
    assert not Path(CANARY).exists()


@pytest.mark.parametrize(
    ("view", "what"),
    [
        (b"(" + text("1") + b"K\x00K\x01t", "views of storages"),
        (b"NN", "as another version of torch does"),
        (b"", "as another version of torch does"),
    ],
)
def test_views_of_storages_are_refused(view: bytes, what: str, tmp_path: Path) -> None:
    path = legacy_file(tmp_path / "model.pt", whole(DICT, tensor(), b"s"), **{"0": ONE})
    assert set(read_tensors(path)) == {"weight"}
    path.write_bytes(path.read_bytes().replace(b"NtQ", view + b"tQ"))
    refused(path, what)
