"""What is in a weights file, told from its header alone: no tensor is read, and nothing is ever run."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from farm.weights.safetensors_header import LENGTH_BYTES, read_header
from farm.weights.tensor_info import BadFile, Damaged, Inert, TensorInfo
from farm.weights.torch_legacy import read_legacy
from farm.weights.torch_zip import MAGIC as ZIP
from farm.weights.torch_zip import read_zip

__all__ = ["BadFile", "Contents", "Inert", "TensorInfo", "read_contents"]

PICKLE = b"\x80"
"""What pickles of the protocols of `torch.save` begin with."""

TAR_PLACE, TAR = 257, b"ustar"

MISTAKEN = {
    b"version https://git-lfs": "it is a pointer of Git LFS, not the file itself: git lfs pull fetches that",
    b"<!DOCTYPE": "it is a web page: the download went wrong",
    b"<!doctype": "it is a web page: the download went wrong",
    b"<html": "it is a web page: the download went wrong",
}
"""What people have instead of a weights file, by how it begins."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a weights file.

    Attributes:
        tree: dicts, lists and tuples, and in them tensors (`TensorInfo`), texts, numbers, bytes, None and
            what stands for objects (`Inert`). Of a safetensors file, its tensors by name. It is at most 64
            levels deep and has at most two million values, so that it can be walked without care.
        metadata: of a safetensors file; others have none.
        is_safetensors: what kind of file it is: else, one of `torch.save`.
    """

    tree: Any
    metadata: Mapping[str, str] = field(default_factory=dict)
    is_safetensors: bool = False

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Those of a state dict, by name: of the dict under `state_dict`, or else of the tree itself."""
        return {name: value for name, value in state_dict(self.tree).items() if isinstance(value, TensorInfo)}


def state_dict(tree: Any) -> dict[str, Any]:
    """What holds weights by name: the dict under `state_dict`, or else the tree; empty if it is no dict."""
    inner = tree.get("state_dict") if isinstance(tree, dict) else None
    found = inner if isinstance(inner, dict) else tree
    return (
        {name: value for name, value in found.items() if isinstance(name, str)}
        if isinstance(found, dict)
        else {}
    )


def read_contents(path: Path) -> Contents:
    """Reads the header of a weights file: safetensors, or a file of `torch.save`, whatever its suffix says.

    A pickle is walked without running it, and refused if it mentions anything that weights do not need.

    Args:
        path: of the file.

    Raises:
        BadFile: it cannot be read, is torn or made to deceive, or is no weights file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Damaged("it is not a file")
        with path.open("rb") as file:
            return _contents(file, file.seek(0, 2))
    except Damaged as error:
        raise BadFile(f"{path}: {error}") from error
    except OSError as error:
        raise BadFile(f"{path}: it cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BadFile(f"{str(path)!r}: it cannot be read: {error}") from error


def _contents(file: BinaryIO, size: int) -> Contents:
    file.seek(0)
    head = file.read(TAR_PLACE + len(TAR))
    file.seek(0)
    if not head:
        raise Damaged("it is empty")
    if head.startswith(ZIP):
        return Contents(read_zip(file, size))
    if head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{":
        tensors, metadata = read_header(file, size)
        return Contents(tensors, metadata, is_safetensors=True)
    if head.startswith(PICKLE):
        return Contents(read_legacy(file, size))
    if head[TAR_PLACE:] == TAR:
        raise Damaged(
            "it is a tar file, as torch wrote them before its version 0.1.10, which cannot be read safely"
        )
    for beginning, what in MISTAKEN.items():
        if head.startswith(beginning):
            raise Damaged(what)
    raise Damaged("it is neither a safetensors file nor one of torch.save")
