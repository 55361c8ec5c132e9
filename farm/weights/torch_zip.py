"""The zip files that `torch.save` writes since its version 1.6: what is in them, without its tensors.

A zip is read here as torch's own writer makes it, and nothing else: members are stored, not deflated, one
directory at the end lists them, and no byte belongs to two of them. So there is one way only to read such a
file, and torch reads the same.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from farm.errors import quoted
from farm.weights.rebuilding import Storage
from farm.weights.tensor_info import Damaged
from farm.weights.unpickling import LONGEST_PICKLE, Unpickling

MAGIC = b"PK\x03\x04"

LARGEST_DIRECTORY = 16 * 2**20
"""Bytes. That of SD 1.5 has 0.1 MB."""

NOTES = {
    "data.pkl", "version", "byteorder", ".data/serialization_id", ".format_version", ".storage_alignment",
}  # fmt: skip
"""What there may be beside `data/`; no more of a note than this is read:"""

LONGEST_NOTE = 64

END = struct.Struct("<4s4H2LH")
END_64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR_64 = struct.Struct("<4sLQL")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
IN_64 = 0xFFFFFFFF
"""Stands in a field of 32 bits whose number is in an extra field."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the zip.

    Attributes:
        name: with its folder.
        place: of its local header.
        size: in bytes; it is stored as it is.
        crc: of its content.
    """

    name: str
    place: int
    size: int
    crc: int


def read_zip(file: BinaryIO, size: int) -> Any:
    """The tree of the pickle in a zip of `torch.save`.

    Args:
        file: the zip.
        size: of the whole file, in bytes.

    Raises:
        Damaged: it is torn, or not as torch writes it.
    """
    members = _members(file, size)
    note = members.get("byteorder")
    if note and _content(file, note, LONGEST_NOTE) != b"little":
        raise Damaged("its numbers are big-endian")
    storages: dict[str, Storage] = {}
    content = _content(file, members["data.pkl"], LONGEST_PICKLE)
    tree = Unpickling(storages).run(io.BytesIO(content))
    for storage in storages.values():
        member = members.get(f"data/{storage.key}")
        if member is None:
            raise Damaged(f"its storage {quoted(storage.key)} is not there")
        if member.size != storage.size:
            raise Damaged(
                f"its storage {quoted(storage.key)} has {member.size:,} bytes instead of {storage.size:,}"
            )
    return tree


def check_places(file: BinaryIO, size: int) -> None:
    """Sees to it that each member's own header says what the directory does; it costs a look at each place.

    Raises:
        Damaged: if not.
    """
    members = _members(file, size)
    ends = [*sorted(member.place for member in members.values())[1:], size]
    for member, end in zip(sorted(members.values(), key=lambda one: one.place), ends, strict=True):
        if _begin(file, member) + member.size > end:
            raise Damaged(f"its member {quoted(member.name)} reaches into the next one")


def _members(file: BinaryIO, size: int) -> Mapping[str, Member]:
    """By their names below the one folder that all of them are in."""
    directory, place, count = _directory(file, size)
    members: dict[str, Member] = {}
    folder = None
    for member in _entries(directory, count):
        top, _, name = member.name.partition("/")
        folder = top if folder is None else folder
        if top != folder or not (name in NOTES or (name.startswith("data/") and name.count("/") == 1)):
            raise Damaged(f"it has a member {quoted(member.name)}, which torch.save does not write")
        if name in members:
            raise Damaged(f"it has two members {quoted(member.name)}")
        members[name] = member
    if "data.pkl" not in members:
        raise Damaged("it is a zip file without a data.pkl: torch.save did not write it")
    _check_apart(members, place)
    return members


def _directory(file: BinaryIO, size: int) -> tuple[bytes, int, int]:
    """The directory of the zip, its place, and how many entries it should have."""
    file.seek(max(0, size - END.size - LOCATOR_64.size))
    tail = file.read(END.size + LOCATOR_64.size)
    torn = "it is a zip file without a directory at its end: it is torn"
    if len(tail) < END.size or tail[-END.size :][:4] != b"PK\x05\x06":
        raise Damaged(torn)
    _, disk, first_disk, here, count, length, place, comment = END.unpack(tail[-END.size :])
    stop = size - END.size
    if len(tail) > END.size and tail.startswith(b"PK\x06\x07"):
        _, _, stop, _ = LOCATOR_64.unpack(tail[: LOCATOR_64.size])
        if stop != size - END.size - LOCATOR_64.size - END_64.size:
            raise Damaged(torn)
        file.seek(stop)
        kind, _, _, _, disk, first_disk, here, count, length, place = END_64.unpack(file.read(END_64.size))
        if kind != b"PK\x06\x06":
            raise Damaged(torn)
    if disk or first_disk or comment or here != count or place + length != stop:
        raise Damaged(torn)
    if length > LARGEST_DIRECTORY:
        raise Damaged(f"its directory is {length:,} bytes long; at most {LARGEST_DIRECTORY:,} are read")
    file.seek(place)
    return file.read(length), place, count


def _entries(directory: bytes, count: int) -> Iterator[Member]:
    place = 0
    for _ in range(count):
        if len(directory) - place < ENTRY.size:
            raise Damaged("the directory of its zip is torn")
        fields = ENTRY.unpack_from(directory, place)
        kind, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length = (
            fields[:13]
        )
        begin = place + ENTRY.size
        place = begin + name_length + extra_length + comment_length
        if kind != b"PK\x01\x02" or place > len(directory):
            raise Damaged("the directory of its zip is torn")
        name = _name(directory[begin : begin + name_length])
        extra = directory[begin + name_length : begin + name_length + extra_length]
        size, packed, where = _wide([size, packed, fields[16]], extra)
        if method or flags & 1 or size != packed:
            raise Damaged(f"its member {quoted(name)} is deflated or encrypted, which torch.save does not do")
        yield Member(name, where, size, crc)
    if place != len(directory):
        raise Damaged("the directory of its zip is torn")


def _name(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Damaged("the directory of its zip has names that are none") from error


def _wide(numbers: list[int], extra: bytes) -> list[int]:
    """Size, packed size and place, those of more than 32 bits from the extra field."""
    wanted = numbers.count(IN_64)
    place = 0
    while wanted and place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        if kind == 1 and 8 * wanted <= length <= len(extra) - place - 4:
            found = iter(struct.unpack_from(f"<{wanted}Q", extra, place + 4))
            return [next(found) if number == IN_64 else number for number in numbers]
        place += 4 + length
    if wanted:
        raise Damaged("the directory of its zip is torn")
    return numbers


def _check_apart(members: Mapping[str, Member], end: int) -> None:
    """No two members may share a byte, so that all of them together are no larger than the file."""
    place = 0
    for member in sorted(members.values(), key=lambda one: one.place):
        if member.place < place:
            raise Damaged(f"its member {quoted(member.name)} lies within another one")
        place = member.place + LOCAL.size + len(member.name.encode()) + member.size
    if place > end:
        raise Damaged("its members are longer than the file: it is torn, or made to deceive")


def _begin(file: BinaryIO, member: Member) -> int:
    """Where the content of a member begins."""
    file.seek(member.place)
    header = file.read(LOCAL.size)
    if len(header) < LOCAL.size:
        raise Damaged(f"its member {quoted(member.name)} is torn")
    kind, _, flags, method, _, _, _, _, _, name_length, extra_length = LOCAL.unpack(header)
    if kind != MAGIC or method or flags & 1 or file.read(name_length) != member.name.encode():
        raise Damaged(f"its member {quoted(member.name)} is not where the directory of the zip says")
    return member.place + LOCAL.size + int(name_length) + int(extra_length)


def _content(file: BinaryIO, member: Member, most: int) -> bytes:
    if member.size > most:
        raise Damaged(f"its {quoted(member.name)} has {member.size:,} bytes; at most {most:,} are read")
    file.seek(_begin(file, member))
    content = file.read(member.size)
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise Damaged(f"its {quoted(member.name)} is torn")
    return content
