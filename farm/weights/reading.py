"""Weights files become tensors. Nothing in a file is ever run: not even when torch's own loader would."""

import threading
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from farm.errors import described, quoted
from farm.weights.contents import BadFile, Contents, read_contents, state_dict
from farm.weights.device_errors import is_out_of_memory
from farm.weights.pickled_names import CALLBACKS, NUMPY_DTYPE, NUMPY_SCALARS, PARAMETER_DICTS, written_out
from farm.weights.rebuilding import NumpyDtype, ParameterDict, numpy_scalar
from farm.weights.tensor_info import Damaged, Inert, TensorInfo
from farm.weights.torch_zip import MAGIC as ZIP
from farm.weights.torch_zip import check_places
from farm.weights.unfinished import check_absent, finished


class _Callback:
    """Stands for a class of Lightning's: without its state, and without Lightning."""

    stands_for: Inert

    def __setstate__(self, state: object) -> None:
        pass


def _stand_in(name: str) -> type[_Callback]:
    return type(name.split()[-1], (_Callback,), {"stands_for": Inert(written_out(name))})


STAND_INS: list[Any] = [
    *((_stand_in(name), written_out(name)) for name in sorted(CALLBACKS)),
    *((ParameterDict, written_out(name)) for name in sorted(PARAMETER_DICTS)),
    *((numpy_scalar, written_out(name)) for name in sorted(NUMPY_SCALARS)),
    (NumpyDtype, written_out(NUMPY_DTYPE)),
]
"""What torch's loader gets where a pickle mentions these names: the real ones are never imported."""

MOST_COPIES = 4
"""Times the size of a pickle that its tensors may need when none shares its numbers with another."""

_ALLOWING = threading.Lock()
"""torch keeps the list of what its loader may use for the whole process."""


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a weights file, on the host; what is under `state_dict` if that is there.

    The tensors are mapped from the file where its format allows it: they take memory when they are touched,
    and the file must not be changed while they are used. What is written into them does not reach the file.

    Args:
        path: of a safetensors file or one of `torch.save`, whatever its suffix says.

    Raises:
        BadFile: as for `read_contents`, or there are no tensors by name.
    """
    contents = read_contents(path)
    names = contents.tensors
    if not names:
        raise BadFile(f"{path}: it has no tensors by name")
    found = state_dict(_load(path, contents))
    return {name: found[name] for name in names}


def read_object(path: Path) -> Any:
    """All that is in a weights file, as `Contents.tree` has it, with tensors (on the host) for `TensorInfo`.

    Raises:
        BadFile: as for `read_contents`.
    """
    return _load(path, read_contents(path))


def convert(source: Path, target: Path) -> None:
    """Writes the state dict of a file of `torch.save` as safetensors: all of it or, on any failure, nothing.

    Args:
        source: is left as it is.
        target: must not be there yet.

    Raises:
        BadFile: the source cannot be read, or is no dict of tensors.
        FarmError: the target is there, or cannot be written.
    """
    check_absent(target)
    contents = read_contents(source)
    if contents.is_safetensors:
        raise BadFile(f"{source}: it is a safetensors file already")
    weights = state_dict(contents.tree)
    foreign = [name for name, value in weights.items() if not isinstance(value, TensorInfo)]
    if not weights or foreign:
        found = f": {quoted(foreign[0])} is none" if foreign else ""
        raise BadFile(f"{source}: it is not a dict of tensors, which is all that safetensors can hold{found}")
    if sum(info.size for info in contents.tensors.values()) > MOST_COPIES * source.stat().st_size:
        raise BadFile(f"{source}: its tensors share their numbers so much that they are too large apart")
    tensors = _apart(state_dict(_load(source, contents)))
    with finished(target) as path:
        save_file(tensors, path, metadata={"format": "pt", **_origin(source, contents)})


def _load(path: Path, contents: Contents) -> Any:
    """What `contents` describes, with tensors; only for files that `read_contents` has let through."""
    try:
        if contents.is_safetensors:
            return load_file(path)
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP)) == ZIP
            if is_zip:
                check_places(file, file.seek(0, 2))
        with _ALLOWING, torch.serialization.safe_globals(STAND_INS):
            # a torn file would kill the process when it is mapped; `read_contents` has seen that it is whole
            return _plain(torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip))
    except Damaged as error:
        raise BadFile(f"{path}: {error}") from error
    except Exception as error:  # whatever the libraries raise about files that they do not like
        if is_out_of_memory(error):
            raise
        raise BadFile(f"{path}: it cannot be read: {described(error)}") from error


def _plain(value: Any) -> Any:
    """A tree of plain containers; that it ends, `read_contents` has seen to."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(inner) for inner in value)
    if isinstance(value, (list, set)):
        return [_plain(inner) for inner in value]
    if isinstance(value, torch.dtype):
        return Inert(str(value))
    if isinstance(value, _Callback) or (isinstance(value, type) and issubclass(value, _Callback)):
        return value.stands_for
    return value


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As safetensors wants them: contiguous, and no two of one storage."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes
        seen.add(storage.data_ptr())
        apart[name] = tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()
    return apart


def _origin(source: Path, contents: Contents) -> dict[str, str]:
    """What a trainer wrote beside the weights, as far as it says where they come from."""
    known = {"converted_from": source.name}
    for name in ("epoch", "global_step"):
        number = contents.tree.get(name)
        if type(number) is int:
            known[name] = str(number)
    return known
