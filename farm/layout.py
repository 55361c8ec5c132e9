"""The `sheet:` of a job: which axis goes where."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from farm.axes import Axis
from farm.document import Table, Text
from farm.entries import listed
from farm.kinds import Reading, nearest


@dataclass(frozen=True, slots=True)
class Layout:
    """Which axis goes where on the sheet; each is the name of an axis, or empty.

    Attributes:
        columns: runs to the right.
        rows: runs down.
        super_columns: blocks of columns.
        super_rows: blocks of rows.
        pages: one sheet for each combination of these axes' values.
    """

    columns: str = ""
    rows: str = ""
    super_columns: str = ""
    super_rows: str = ""
    pages: tuple[str, ...] = ()


_PLACES = tuple(entry.name for entry in fields(Layout))


def read_layout(sheet: Table, axes: Sequence[Axis], reading: Reading) -> Layout:
    """The layout as asked, and for the axes that are not placed: columns, then rows, then pages."""
    names = {axis.name: "" for axis in axes}
    single: dict[str, str] = {}
    pages: list[str] = []
    for place, written in sheet.items():
        if place not in _PLACES:
            continue
        for text in listed(written):
            if not isinstance(text, Text) or not text:
                continue
            if _placed(str(place), text, names, reading):
                pages += [str(text)] if place == "pages" else []
                single |= {} if place == "pages" else {str(place): str(text)}
    for name in [name for name, place in names.items() if not place]:
        free = next((place for place in ("columns", "rows") if place not in single), "pages")
        if free == "pages":
            pages.append(name)
        else:
            single[free] = name
    return Layout(**single, pages=tuple(pages))


def _placed(place: str, text: Text, names: dict[str, str], reading: Reading) -> bool:
    """Note in `names` where the axis goes, if that can be."""
    name = str(text)
    if name not in names:
        axes = f"the axes are {', '.join(map(repr, names))}" if names else "there are no axes"
        near = nearest(name, names) or f"; {axes}"
        reading.mistakes.add(text.place, f"sheet: {place}: {name!r} is not an axis{near}")
        return False
    if names[name]:
        reading.mistakes.add(text.place, f"sheet: {place}: {name!r} is placed already, as {names[name]}")
        return False
    names[name] = place
    return True
