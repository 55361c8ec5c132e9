"""The names of files in a job's folder: readable, of a closed set of characters, valid on every system."""

import re
import unicodedata
from collections.abc import Sequence

from farm.axes import Axis
from farm.cell import Cell

LONGEST_NAME = 120
"""Characters in a file's name; a third of what file systems allow, so that whole paths fit on Windows."""


def slug(text: str, longest: int = LONGEST_NAME) -> str:
    """`text` in letters, digits, `.`, `_`, `+` and `-` of ASCII; accents go, all else becomes `_`.

    The result neither begins nor ends with a dot, so that it is no hidden file, no parent folder and no name
    that Windows would shorten. It may be empty.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", plain).strip("._")[:longest].rstrip("._")


def picture_name(cell: Cell, axes: Sequence[Axis]) -> str:
    """The file name of a cell's picture: number, axis values, the first 8 characters of its key."""
    number, key = f"{cell.number:05d}", slug(cell.key[:8])
    room = LONGEST_NAME - len(f"{number}--{key}.png")
    return "-".join(part for part in (number, _values(cell, axes, room), key) if part) + ".png"


def _values(cell: Cell, axes: Sequence[Axis], room: int) -> str:
    titles = [axis.values[index].title for axis, index in zip(axes, cell.coordinates, strict=True)]
    share = max(12, room // max(1, len(titles)))  # one long prompt does not push the other values out
    return slug("-".join(filter(None, (slug(title, share) for title in titles))), room)
