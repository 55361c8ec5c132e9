"""What the functions that pickles of weights call would make, without calling any of them."""

import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from farm.weights.pickled_names import ENCODE, NUMPY_DTYPE, NUMPY_SCALARS, ORDERED_DICT, SETS
from farm.weights.tensor_info import ITEM_SIZES, Damaged, Inert, TensorInfo, are_natural, is_natural

MOST_DIMENSIONS = 32

LARGEST_KEY = 2**63
"""Larger integers can be chosen so that a dict of them takes quadratic time."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The bytes that tensors share.

    Attributes:
        key: its name in the file.
        dtype: of its elements.
        count: of its elements.
    """

    key: str
    dtype: str
    count: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * ITEM_SIZES[self.dtype]


class NumpyDtype:
    """Stands for `numpy.dtype`, which pickles of its numbers call and then complete.

    Args:
        code: numpy's, as `f8`.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        self._code = code
        self._order = "<"

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), "<" | ">" | "|" as order, *_):
                self._order = order.replace("|", "<")
            case _:
                raise Damaged("it has a type of numpy in a form that is not known")

    def number(self, content: bytes) -> int | float | bool:
        """What these bytes are, of this type."""
        letter = NUMPY_LETTERS.get(self._code)
        if letter is None or len(content) != int(self._code[1:]):
            raise Damaged("it has a number of numpy that is not one of its simple types")
        [number] = struct.unpack(self._order + letter, content)
        return number  # type: ignore[no-any-return]  # as the letter says


NUMPY_LETTERS = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
"""The codes of numpy's numbers, and those of the `struct` module."""


def numpy_scalar(dtype: NumpyDtype, content: bytes) -> int | float | bool:
    """Stands for numpy's `scalar`: Python's number instead of its own."""
    return dtype.number(content)


class ParameterDict(dict[str, Any]):
    """Stands for `torch.nn.ParameterDict`: what is in it, and nothing of a module."""

    def __setstate__(self, state: object) -> None:
        match state:
            case {"_parameters": dict(parameters)}:
                self.update(parameters)
            case _:
                raise Damaged("it has a ParameterDict in a form that is not known")


def is_key(value: object) -> bool:
    """Whether a dict of a weights file may have this key: one that takes no time to hash."""
    if type(value) is int:
        return -LARGEST_KEY <= value < LARGEST_KEY
    return type(value) in (str, bool, type(None), Inert)


def check_keys(keys: list[Any]) -> None:
    """Raises: Damaged: if something else would be the key of a dict."""
    for key in keys:
        if not is_key(key):
            raise Damaged(
                f"it has a dict or a set with a key that is not fit for one, of the type {type(key).__name__}"
            )


def rebuild(function: str, arguments: tuple[Any, ...]) -> Any:
    """What an allowed function makes of these arguments.

    Raises:
        Damaged: it is never called so, or the tensor does not fit into its storage.
    """
    made = FUNCTIONS[function](arguments)
    if made is None:
        raise Damaged(f"it calls {function.split()[-1]} in a way that is not known")
    return made


def _tensor(arguments: tuple[Any, ...]) -> TensorInfo | None:
    match arguments:
        case (Storage() as storage, offset, tuple(shape), tuple(stride)):
            pass
        case (Storage() as storage, offset, tuple(shape), tuple(stride), bool(), OrderedDict() as hooks):
            if hooks:
                return None
        case _:
            return None
    return _placed(storage, storage.dtype, offset, shape, stride)


def _tensor_of_dtype(arguments: tuple[Any, ...]) -> TensorInfo | None:
    match arguments:
        case (
            Storage(dtype="uint8") as storage, offset, tuple(shape), tuple(stride), bool(),
            OrderedDict() as hooks, Inert(name),
        ) if not hooks and name.removeprefix("torch.") in ITEM_SIZES:  # fmt: skip
            return _placed(storage, name.removeprefix("torch."), offset, shape, stride)
    return None


def _placed(
    storage: Storage, dtype: str, offset: object, shape: tuple[Any, ...], stride: tuple[Any, ...]
) -> TensorInfo:
    """A tensor, if all of it lies within its storage and it is no larger than that."""
    if not is_natural(offset) or not are_natural(shape + stride):
        raise Damaged("it has a tensor with numbers that are no sizes and places")
    if len(shape) != len(stride) or len(shape) > MOST_DIMENSIONS:
        raise Damaged("it has a tensor whose sizes and strides do not fit together")
    info = TensorInfo(dtype, shape)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride))
    if info.size and ((last + 1) * ITEM_SIZES[dtype] > storage.size or info.size > storage.size):
        raise Damaged(
            f"it has a tensor that is larger than its storage {storage.key}: it is torn, or made to deceive"
        )
    return info


def _parameter(arguments: tuple[Any, ...]) -> TensorInfo | None:
    match arguments:
        case (TensorInfo() as info, bool(), OrderedDict() as hooks) if not hooks:
            return info
    return None


def _ordered(arguments: tuple[Any, ...]) -> OrderedDict[Any, Any] | None:
    match arguments:
        case ():
            return OrderedDict()
        case (list(pairs),) if all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
            check_keys([key for key, _ in pairs])
            return OrderedDict(pairs)
    return None


def _set(arguments: tuple[Any, ...]) -> list[Any] | None:
    match arguments:
        case (list(items),):
            check_keys(items)
            return list(dict.fromkeys(items))
    return None


def _encoded(arguments: tuple[Any, ...]) -> bytes | None:
    match arguments:
        case (str(text), "latin1"):
            try:
                return text.encode("latin1")
            except UnicodeEncodeError as error:
                raise Damaged("it has bytes that are none") from error
    return None


def _numpy_dtype(arguments: tuple[Any, ...]) -> NumpyDtype | None:
    match arguments:
        case (str(code), bool() | 0 | 1, bool() | 0 | 1):
            return NumpyDtype(code)
    return None


def _numpy_scalar(arguments: tuple[Any, ...]) -> int | float | bool | None:
    match arguments:
        case (NumpyDtype() as dtype, bytes(content)):
            return numpy_scalar(dtype, content)
    return None


FUNCTIONS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils _rebuild_parameter": _parameter,
    ORDERED_DICT: _ordered,
    ENCODE: _encoded,
    NUMPY_DTYPE: _numpy_dtype,
    **dict.fromkeys(NUMPY_SCALARS, _numpy_scalar),
    **dict.fromkeys(SETS, _set),
}
"""By the names of the functions; None says that the arguments are not known."""
