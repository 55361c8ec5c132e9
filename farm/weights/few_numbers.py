"""The numbers of one small tensor of a safetensors file, without torch."""

import json
import struct
from pathlib import Path

from farm.weights.safetensors_header import LENGTH_BYTES

MOST_BYTES = 1 << 16

FORMATS = {"F16": "e", "F32": "f", "F64": "d"}
"""Of `struct`, by the format's names of types."""


def numbers_of(path: Path, name: str) -> list[float]:
    """What a tensor holds; nothing if there is none of this name, or it is large, or not in such a file.

    Args:
        path: of a file whose header was read and found right.
        name: of the tensor.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if file.read(1) != b"{":
            return []
        file.seek(LENGTH_BYTES)
        entry = json.loads(file.read(length)).get(name)
        if entry is None or entry["data_offsets"][1] - entry["data_offsets"][0] > MOST_BYTES:
            return []
        begin, end = entry["data_offsets"]
        file.seek(LENGTH_BYTES + length + begin)
        content = file.read(end - begin)
    if entry["dtype"] == "BF16":  # the upper half of a float32
        pairs = (content[at : at + 2] for at in range(0, len(content), 2))
        content, kind = b"".join(b"\0\0" + pair for pair in pairs), "f"
    else:
        kind = FORMATS.get(entry["dtype"], "")
    return list(struct.unpack(f"<{len(content) // struct.calcsize(kind)}{kind}", content)) if kind else []
