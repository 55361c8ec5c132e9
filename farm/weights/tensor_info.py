"""What headers of weights files say, as plain values."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from farm.errors import FarmError

ITEM_SIZES = {
    "bool": 1, "uint8": 1, "int8": 1, "float8_e5m2": 1, "float8_e4m3fn": 1, "float8_e8m0fnu": 1,
    "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2,
    "int32": 4, "uint32": 4, "float32": 4,
    "int64": 8, "uint64": 8, "float64": 8, "complex64": 8,
}  # fmt: skip
"""Bytes of one element, by torch's name of its type."""


class BadFile(FarmError):
    """A weights file that cannot or must not be read; the message names the file and says why."""


class Damaged(Exception):
    """What is wrong with a file, for those who know its path."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor without its numbers.

    Attributes:
        dtype: torch's name of its type, as `float16`.
        shape: its sizes; empty for a single number.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]


@dataclass(frozen=True, slots=True)
class Inert:
    """Stands for a class, or an object of one, that is neither imported nor made.

    Attributes:
        name: of the class, with its module.
    """

    name: str


def is_natural(number: object) -> bool:
    """Whether this can be a size or a place: an integer from 0 on that torch can hold."""
    return type(number) is int and 0 <= number < 2**62


def are_natural(numbers: Iterable[object]) -> bool:
    """Whether all of these can be sizes or places."""
    return all(is_natural(number) for number in numbers)
