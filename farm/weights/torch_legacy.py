"""The files that torch wrote before its version 1.6: five pickles one after the other, then the storages."""

from typing import Any, BinaryIO

from farm.errors import quoted
from farm.weights.rebuilding import Storage
from farm.weights.tensor_info import ITEM_SIZES, Damaged
from farm.weights.unpickling import Unpickling

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

COUNT_BYTES = 8
"""Before each storage stands how many elements it has."""


def read_legacy(file: BinaryIO, size: int) -> Any:
    """The tree in a file of an old torch.

    Args:
        file: at its beginning.
        size: of the whole file, in bytes.

    Raises:
        Damaged: it is torn, or another pickle than torch wrote.
    """
    if Unpickling({}).run(file) != MAGIC_NUMBER:
        raise Damaged("it is a pickle, but torch.save did not write it")
    if Unpickling({}).run(file) != PROTOCOL:
        raise Damaged("it is of a version of torch's old format that is not known")
    match Unpickling({}).run(file):
        case {"little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4 | 8}}:
            pass
        case _:
            raise Damaged("it was written by another kind of machine")
    storages: dict[str, Storage] = {}
    tree = Unpickling(storages).run(file)
    keys = Unpickling({}).run(file)
    if (
        type(keys) is not list
        or any(type(key) is not str for key in keys)
        or sorted(keys) != sorted(storages)
    ):
        raise Damaged("its storages are not those that its tensors need")
    _check_storages(file, size, [storages[key] for key in keys])
    return tree


def _check_storages(file: BinaryIO, size: int, storages: list[Storage]) -> None:
    place = file.tell()
    for storage in storages:
        file.seek(place)
        count = int.from_bytes(file.read(COUNT_BYTES), "little")
        place += COUNT_BYTES + storage.size
        if count != storage.count or place > size:
            raise Damaged(
                f"its storage {quoted(storage.key)} ({count * ITEM_SIZES[storage.dtype]:,} bytes) is torn"
            )
