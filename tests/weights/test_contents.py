import random
import resource
import struct
import tracemalloc
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from farm.weights.contents import BadFile, TensorInfo, read_contents
from farm.weights.reading import read_object
from farm.weights.unpickling import LONGEST_PICKLE
from tests.weights.torch_files import legacy_file, name, storage, tensor, text, whole, zip_file

STATE = {
    "half": torch.ones(3, 4, dtype=torch.float16),
    "brain": torch.zeros(2, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "flag": torch.tensor([True]),
    "empty": torch.empty(0, 3),
    "hollow": torch.empty(5, 0),
    "turned": torch.ones(2, 5).t(),
    "eight": torch.ones(4).to(torch.float8_e4m3fn),
}
SAID = {
    "half": TensorInfo("float16", (3, 4)),
    "brain": TensorInfo("bfloat16", (2,)),
    "count": TensorInfo("int64", ()),
    "flag": TensorInfo("bool", (1,)),
    "empty": TensorInfo("float32", (0, 3)),
    "hollow": TensorInfo("float32", (5, 0)),
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


def header_file(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    length = len(header) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + header + data)
    return path


ENTRY = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("header", "data", "what"),
    [
        (ENTRY + b"}", b"123", "'a' ends at byte 4 of the tensors, but only 3 are there: it is torn"),
        (ENTRY + b"}", b"12345", "its tensors end at byte 4, but 5 bytes follow the header"),
        (ENTRY, b"1234", "its header is not JSON"),
        (ENTRY + b"}x", b"1234", "its header is not JSON"),
        (ENTRY + b',"b":1}', b"1234", "'b' is not described by dtype, shape and data_offsets alone"),
        (ENTRY + b',"a":{}}', b"1234", "its header has the same key twice"),
        (ENTRY + b',"__metadata__":{"x":"1","x":"2"}}', b"1234", "its header has the same key twice"),
        (ENTRY + b',"__metadata__":{"x":1}}', b"1234", "its __metadata__ is not a JSON object of texts"),
        (ENTRY + b',"__metadata__":[]}', b"1234", "its __metadata__ is not a JSON object of texts"),
        (ENTRY.replace(b"F32", b"F33") + b"}", b"1234", "'a' is of the type 'F33', which is not known"),
        (ENTRY.replace(b"F32", b"F16") + b"}", b"1234", "'a' has 4 bytes, but F16 of its shape needs 2"),
        (ENTRY.replace(b"[1]", b"[-1]") + b"}", b"1234", "'a' has numbers that are no sizes"),
        (ENTRY.replace(b"[1]", b"[1.0]") + b"}", b"1234", "'a' has numbers that are no sizes"),
        (ENTRY.replace(b"[1]", b"[true]") + b"}", b"1234", "'a' has numbers that are no sizes"),
        (ENTRY.replace(b"[1]", b"[NaN]") + b"}", b"1234", "its header has a NaN, which is not JSON"),
        (ENTRY.replace(b"[1]", b"[" + b"9" * 5000 + b"]") + b"}", b"1234", "its header is not JSON"),
        (ENTRY.replace(b"[1]", b"[" * 100_000) + b"}", b"1234", "its header is not JSON"),
        (ENTRY.replace(b"[1]", b"[4294967296,4294967296]") + b"}", b"1234", "'a' has 4 bytes"),
        (ENTRY.replace(b"[0,4]", b"[4,0]") + b"}", b"1234", "'a' has -4 bytes"),
        (ENTRY.replace(b"[0,4]", b"[1,5]") + b"}", b"12345", "'a' does not begin where"),
        (ENTRY.replace(b"[0,4]", b"[0,4,8]") + b"}", b"1234", "'a' is not described by"),
        (ENTRY.replace(b"}", b',"more":1}') + b"}", b"1234", "'a' is not described by"),
        (ENTRY + b"," + ENTRY[1:].replace(b'"a"', b'"b"') + b"}", b"1234", "'b' does not begin where"),
        (b"{\xff}", b"", "its header is not JSON"),
        (b"{}x", b"", "its header is not JSON"),
        (ENTRY.replace(b'"a"', b'"\\uD800"') + b"}", b"1234", "its header is not JSON"),
        (ENTRY + b',"__metadata__":{"x":"\\udc00"}}', b"1234", "its header is not JSON"),
    ],
)
def test_a_header_of_safetensors_is_held_against_its_format(
    header: bytes, data: bytes, what: str, tmp_path: Path
) -> None:
    path = header_file(tmp_path / "model.safetensors", header, data)
    with pytest.raises(BadFile) as error:
        read_contents(path)
    assert str(error.value).startswith(f"{path}: {what}") and "\n" not in str(error.value)


def test_what_safetensors_reads_is_read(tmp_path: Path) -> None:
    for header, data in (
        (ENTRY + b"}   ", b"1234"),
        (b"{}", b""),
        (b'{"__metadata__":{"a":"\\ud83d\\ude00"}}', b""),
    ):
        path = header_file(tmp_path / "model.safetensors", header, data)
        with safe_open(path, framework="pt") as file:
            assert list(file.keys()) == list(read_contents(path).tensors)


@pytest.mark.parametrize("length", [2**62, 2**64 - 1, 2**31, 10_000])
def test_a_length_that_is_claimed_is_not_believed(length: int, tmp_path: Path) -> None:
    path = header_file(tmp_path / "model.safetensors", ENTRY + b"}", b"1234", length)
    tracemalloc.start()
    try:
        with pytest.raises(BadFile, match=f"its header says that it is {length:,} bytes long, but only"):
            read_contents(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_header_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((2**34).to_bytes(8, "little") + b"{")
        file.truncate(2**35)  # takes no room on the disk
    with pytest.raises(BadFile, match=r"its header is 17,179,869,184 bytes long; at most 8,388,608 are read"):
        read_contents(path)


def test_a_pickle_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    content = whole(text("x" * (LONGEST_PICKLE + 1)))
    for write in (zip_file, legacy_file):
        with pytest.raises(BadFile, match=r"at most 33,554,432 are read|claims a piece of 33,554,433 bytes"):
            read_contents(write(tmp_path / "model.pt", content))


def test_a_directory_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "model.pt", whole(b"}"))
    end = path.read_bytes()[-98:]
    length = 2**34
    with path.open("r+b") as file:
        file.truncate(length + 10_000)
        record = bytearray(end)
        record[40:56] = length.to_bytes(8, "little") + (10_000).to_bytes(8, "little")
        record[64:72] = (length + 10_000).to_bytes(8, "little")
        file.seek(length + 10_000)
        file.write(record)
    with pytest.raises(BadFile, match="its directory is 17,179,869,184 bytes long"):
        read_contents(path)


def test_a_zip_of_more_than_4_gb_is_read(tmp_path: Path) -> None:
    """Its sizes and places stand in fields of 64 bits; holes in the file take no room on the disk."""
    path = tmp_path / "model.ckpt"
    count = 2**31 + 5
    writer = SparseZip(path)
    writer.add(
        "m/data.pkl", whole(b"}", text("w"), tensor((count,), stored=storage(count=count, kind=HALF)), b"s")
    )
    writer.add("m/data/0", b"", size=2 * count)
    writer.add("m/data/1", b"")
    writer.end()
    assert read_contents(path).tensors == {"w": TensorInfo("float16", (count,))}


HALF = name("torch", "HalfStorage")


class SparseZip:
    """Writes a zip with a hole in it."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.entries: list[bytes] = []

    def add(self, member: str, content: bytes, size: int = 0) -> None:
        place, size, named = self.file.tell(), size or len(content), member.encode()
        numbers = struct.pack("<2H3Q", 1, 24, size, size, place)
        self.file.write(struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 0, 0, len(named), 0) + named)
        self.file.write(content)
        self.file.truncate(self.file.tell() + size - len(content))
        self.file.seek(0, 2)
        wide = (0xFFFFFFFF,) * 2
        entry = (45, 45, 0, 0, 0, 0, zlib.crc32(content), *wide, len(named), 28, 0, 0, 0, 0, 0xFFFFFFFF)
        self.entries.append(struct.pack("<4s6H3L5H2L", b"PK\1\2", *entry) + named + numbers)

    def end(self) -> None:
        place, directory, count = self.file.tell(), b"".join(self.entries), len(self.entries)
        self.file.write(directory)
        end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), place)
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, place + len(directory), 1)
        self.file.write(end + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0, 0, 0))
        self.file.close()


def mutated(content: bytes, draw: random.Random) -> bytes:
    """With some bytes changed, taken out, put in, doubled or cut off."""
    found = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        if len(found) < 16:
            break
        place = draw.randrange(len(found))
        match draw.randrange(7):
            case 0:
                found[place] ^= 1 << draw.randrange(8)
            case 1:
                found[place] = draw.choice(b'\0\xff\x7f\x80(.}])tRQbsuahjqrXcN0123456789[{,"')
            case 2:
                del found[place : place + draw.randrange(1, 9)]
            case 3:
                found[place:place] = draw.randbytes(draw.randrange(1, 9))
            case 4:
                found[place : place + 8] = draw.choice((2**62, 2**64 - 1, 2**31, 0)).to_bytes(8, "little")
            case 5:
                found[place:place] = found[place : place + draw.randrange(1, 99)]
            case 6:
                del found[max(place, 1) :]
    return bytes(found)


def samples(folder: Path) -> dict[str, Callable[[random.Random], bytes]]:
    """What makes a mutation of a file of each kind; a pickle in a zip written anew gets past its checksum."""
    tensors = {"weight": torch.ones(2, 3), "count": torch.tensor(3), "half": torch.ones(4).half()}
    tree = {"state_dict": OrderedDict(tensors), "epoch": 3, "scores": [np.float64(0.5)], "seen": {1}}
    header, zipped, legacy = folder / "a.safetensors", folder / "a.ckpt", folder / "a.pt"
    save_file(tensors, header, metadata={"title": "a"})
    torch.save(tree, zipped)
    torch.save(tree, legacy, _use_new_zipfile_serialization=False)
    reader = torch._C.PyTorchFileReader(str(zipped))
    content = reader.get_record("data.pkl")
    stored = {str(key): reader.get_record(f"data/{key}") for key in range(3)}

    def pickled(draw: random.Random) -> bytes:
        return zip_file(folder / "again.ckpt", mutated(content, draw), **stored).read_bytes()

    def headed(draw: random.Random) -> bytes:
        text = mutated(header.read_bytes()[8:-40], draw)
        return len(text).to_bytes(8, "little") + text + header.read_bytes()[-40:]

    return {
        "header": lambda draw: mutated(header.read_bytes()[:-40], draw) + header.read_bytes()[-40:],
        "JSON": headed,
        "pickle": pickled,
        "zip": lambda draw: mutated(zipped.read_bytes(), draw),
        "legacy": lambda draw: mutated(legacy.read_bytes(), draw),
    }


@pytest.mark.parametrize("kind", ["header", "JSON", "pickle", "zip", "legacy"])
@pytest.mark.parametrize(
    "seeds", [range(100), pytest.param(range(100, 1000), marks=pytest.mark.slow)], ids=len
)
def test_mutations_are_read_or_refused(kind: str, seeds: range, tmp_path: Path) -> None:
    sample, path, read = samples(tmp_path)[kind], tmp_path / "mutated", 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        path.write_bytes(sample(random.Random(seed)))
        try:
            said = read_contents(path)
            tree = read_object(path)
        except BadFile as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            read += 1
            assert described_tree(tree) == said.tree
    assert read < len(seeds) and (read or kind == "header")  # most changes of which break its length
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # in KB


def described_tree(tree: Any) -> Any:
    """What torch read, as its header should have said it."""
    if isinstance(tree, torch.Tensor):
        return TensorInfo(str(tree.dtype).removeprefix("torch."), tuple(tree.shape))
    if isinstance(tree, dict):
        return {key: described_tree(value) for key, value in tree.items()}
    return type(tree)(map(described_tree, tree)) if isinstance(tree, (list, tuple)) else tree
