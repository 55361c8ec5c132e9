"""Files of `torch.save` around any pickle, through torch's own writer; and pieces to make such pickles of."""

import pickle
import struct
from pathlib import Path

import torch

ONE = struct.pack("<f", 1.0)
"""The content of a storage of one number."""


def zip_file(path: Path, content: bytes, **storages: bytes) -> Path:
    """Written as the zip that torch writes today."""
    writer = torch._C.PyTorchFileWriter(str(path))
    writer.write_record("data.pkl", content, len(content))
    writer.write_record("byteorder", b"little", 6)
    for key, numbers in storages.items():
        writer.write_record(f"data/{key}", numbers, len(numbers))
    writer.write_end_of_file()
    return path


def legacy_file(path: Path, content: bytes, **storages: bytes) -> Path:
    """Written as torch did before its version 1.6; storages are of four bytes a number."""
    system = {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    heads = [pickle.dumps(head, protocol=2) for head in (0x1950A86A20F9469CFC6C, 1001, system)]
    tail = pickle.dumps(list(storages), protocol=2)
    numbers = [struct.pack("<q", len(one) // 4) + one for one in storages.values()]
    path.write_bytes(b"".join([*heads, content, tail, *numbers]))
    return path


def text(value: str) -> bytes:
    """A text, in a pickle."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def name(module: str, name: str) -> bytes:
    """A global, in a pickle."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def called(function: bytes, *arguments: bytes) -> bytes:
    """A function called, in a pickle."""
    return function + b"(" + b"".join(arguments) + b"tR"


def integer(value: int) -> bytes:
    """A number of any size, in a pickle."""
    content = pickle.encode_long(value)
    return b"\x8a" + bytes([len(content)]) + content


def storage(key: str = "0", count: int = 1, kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    """A storage, in a pickle."""
    return b"(" + text("storage") + kind + text(key) + text("cpu") + integer(count) + b"tQ"


def numbers(*values: int) -> bytes:
    """A tuple of integers, in a pickle."""
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(
    shape: tuple[int, ...] = (1,),
    stride: tuple[int, ...] = (1,),
    offset: int = 0,
    stored: bytes | None = None,
) -> bytes:
    """A tensor, in a pickle: of one number, unless something else is said."""
    return called(
        name("torch._utils", "_rebuild_tensor_v2"),
        *(stored or storage(), integer(offset), numbers(*shape), numbers(*stride), b"\x89"),
        called(name("collections", "OrderedDict")),
    )


def whole(*pieces: bytes) -> bytes:
    """A pickle of one object."""
    return b"\x80\x02" + b"".join(pieces) + b"."
