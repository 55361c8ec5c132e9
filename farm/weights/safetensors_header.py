"""The header of a safetensors file, checked as its format demands (https://github.com/huggingface/safetensors)."""

import json
from collections.abc import Mapping
from typing import Any, BinaryIO, NoReturn

from farm.errors import quoted
from farm.weights.tensor_info import Damaged, TensorInfo, are_natural

LONGEST_HEADER = 16 * 2**20
"""Bytes. Those of SDXL have 0.3 MB, with trainers' notes a few; in memory JSON takes twenty times as much."""

LENGTH_BYTES = 8

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu", "I16": "int16", "U16": "uint16", "F16": "float16", "BF16": "bfloat16",
    "I32": "int32", "U32": "uint32", "F32": "float32", "I64": "int64", "U64": "uint64", "F64": "float64",
    "C64": "complex64",
}  # fmt: skip
"""The format's names of types, and torch's."""

METADATA = "__metadata__"


def read_header(file: BinaryIO, size: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors of a safetensors file, in the order of its header, and its metadata.

    Args:
        file: at its beginning.
        size: of the whole file, in bytes.

    Raises:
        Damaged: the file is torn, or not what the format allows.
    """
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    rest = size - LENGTH_BYTES
    if length > rest:
        raise Damaged(
            f"its header says that it is {length:,} bytes long, but only {rest:,} follow: it is torn"
        )
    if length > LONGEST_HEADER:
        raise Damaged(f"its header is {length:,} bytes long; at most {LONGEST_HEADER:,} are read")
    header = _parsed(file.read(length))
    metadata = _metadata(header.pop(METADATA, {}))
    spans = {name: _entry(name, entry) for name, entry in header.items()}
    _check_spans(spans, rest - length)
    return {name: info for name, (info, _, _) in spans.items()}, metadata


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except Damaged:
        raise
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its header is not JSON as safetensors writes it ({type(error).__name__})") from error
    if not isinstance(header, dict):
        raise Damaged("its header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Damaged("its header has the same key twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise Damaged(f"its header has a {text}, which is not JSON")


def _metadata(found: object) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise Damaged(f"its {METADATA} is not a JSON object of texts")
    return found


def _entry(name: str, entry: object) -> tuple[TensorInfo, int, int]:
    """Of one tensor: what it is, and where its bytes begin and end."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end], **rest} if not rest:
            if dtype not in DTYPES:
                raise Damaged(f"{quoted(name)} is of the type {quoted(dtype)}, which is not known")
            if not are_natural((*shape, begin, end)):
                raise Damaged(f"{quoted(name)} has numbers that are no sizes and places")
            info = TensorInfo(DTYPES[dtype], tuple(shape))
            if end - begin != info.size:
                raise Damaged(
                    f"{quoted(name)} has {end - begin:,} bytes, but {dtype} of its shape needs another number"
                )
            return info, begin, end
    raise Damaged(f"{quoted(name)} is not described by dtype, shape and data_offsets alone")


def _check_spans(spans: Mapping[str, tuple[TensorInfo, int, int]], size: int) -> None:
    """Tensors must fill what follows the header, one after the other."""
    place = 0
    for name, (_, begin, end) in sorted(spans.items(), key=lambda item: item[1][1:]):
        if begin != place:
            raise Damaged(f"{quoted(name)} does not begin where the tensor before it ends")
        if end > size:
            raise Damaged(
                f"{quoted(name)} ends at byte {end:,} of the tensors, but only {size:,} are there: it is torn"
            )
        place = end
    if place != size:
        raise Damaged(f"its tensors end at byte {place:,}, but {size:,} bytes follow the header")
