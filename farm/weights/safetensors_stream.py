"""Safetensors files written tensor by tensor, so that no more than one is in memory."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from farm.weights.safetensors_header import DTYPES, LENGTH_BYTES, METADATA
from farm.weights.tensor_info import TensorInfo
from farm.weights.unfinished import finished

ALIGNMENT = 8
"""Of what follows the header, in bytes."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_stream(
    target: Path,
    tensors: Mapping[str, TensorInfo],
    tensor: Callable[[str], torch.Tensor],
    metadata: Mapping[str, str],
    progress: Callable[[int, int], None],
) -> None:
    """Writes a file: all of it or, on any failure, nothing.

    Args:
        target: must not be there yet.
        tensors: what will be in it.
        tensor: makes each of them, once.
        metadata: of the file.
        progress: is told how many bytes are written, and of how many.

    Raises:
        FarmError: the target is there, or cannot be written.
    """
    sizes = {name: info.size for name, info in tensors.items()}
    written, whole = 0, sum(sizes.values())
    with finished(target) as path, path.open("wb") as file:
        file.write(_header(tensors, metadata))
        for name, info in tensors.items():
            made = tensor(name)
            assert (str(made.dtype), tuple(made.shape)) == (f"torch.{info.dtype}", info.shape), name
            file.write(made.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            written += sizes[name]
            progress(written, whole)


def _header(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {METADATA: dict(metadata)}
    begin = 0
    for name, info in tensors.items():
        end = begin + info.size
        header[name] = {
            "dtype": _NAMES[info.dtype], "shape": list(info.shape), "data_offsets": [begin, end]
        }  # fmt: skip
        begin = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
