"""The geometry of a sheet: where tiles, labels and rules stand, and where a sheet too large is cut."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise, product

from farm.results.frame import Frame, Heading, Label
from farm.results.lettering import Block, fit, line_height, readable, shortened, text_width
from farm.results.pages import Place, Side, Sides

LONGEST_SIDE = 30_000
"""Pixels; beyond it, image viewers give up."""

MOST_PIXELS = 170_000_000
"""Below the limit from which Pillow refuses to open a picture (178,956,970)."""

LONGEST_LINE = 16
"""Columns beyond which an axis that has the sheet for itself goes on in another line."""

_SMALLEST_TILE = 128
"""Pixels; smaller pictures are enlarged by a whole factor, so that their labels have room."""

_LARGEST_TILE = 8_000
_MARGIN = 20
_GAP = 4
_BLOCK_GAP = 28
_PADDING = 12
_GREY = "#666666"

Index = tuple[int, int]
"""Of a super axis' value and of the inner axis' value."""


def frames(
    sides: Sides, heading: Heading, largest: tuple[int, int], captions: Mapping[Place, str] | None = None
) -> list[Frame]:
    """The pictures that one page needs: one, or several where one would be too large to be looked at.

    Args:
        sides: the axes.
        heading: what stands above each part.
        largest: the size of the largest picture.
        captions: what stands under the tiles, by their place.
    """
    rows = list(product(range(len(sides.super_rows.titles)), range(len(sides.rows.titles))))
    columns = list(product(range(len(sides.super_columns.titles)), range(len(sides.columns.titles))))
    setting = _Setting(sides, heading, _tile_box(largest), captions or {})
    return [_captioned(frame, setting) for frame in _parts(setting, rows, columns)]


def _tile_box(largest: tuple[int, int]) -> tuple[int, int]:
    factor: float = -(-_SMALLEST_TILE // max(largest))
    factor = min(factor, _LARGEST_TILE / max(largest))
    return max(1, round(largest[0] * factor)), max(1, round(largest[1] * factor))


@dataclass(frozen=True, slots=True)
class _Setting:
    """What all parts of a page have in common."""

    sides: Sides
    heading: Heading
    box: tuple[int, int]
    under: Mapping[Place, str]

    @property
    def tall(self) -> int:
        """A tile and the two lines under it, where there are any, in pixels."""
        return self.box[1] + (2 * line_height(self.captions) + _GAP if self.under else 0)

    @property
    def letters(self) -> int:
        return min(36, max(14, self.box[0] // 12))

    @property
    def captions(self) -> int:
        return max(12, round(self.letters * 0.75))


def _parts(setting: _Setting, rows: Sequence[Index], columns: Sequence[Index]) -> Iterator[Frame]:
    frame = _framed(setting, rows, columns)
    width, height = frame.size
    fits = max(width, height) <= LONGEST_SIDE and width * height <= MOST_PIXELS
    if fits or len(rows) == len(columns) == 1:
        yield frame
    elif len(columns) == 1 or (len(rows) > 1 and height >= width):
        for half in _halves(rows):
            yield from _parts(setting, half, columns)
    else:
        for half in _halves(columns):
            yield from _parts(setting, rows, half)


@dataclass(frozen=True, slots=True)
class _Band:
    """The labels of one axis beside the tiles; without an axis, nothing of no width.

    Attributes:
        titles: what stands there, by the value's index.
        width: in pixels, the gap to what stands right of it included.
        letters: their largest size.
    """

    titles: tuple[str, ...]
    width: int
    letters: int

    def blocks(self, values: Sequence[int], height: int) -> list[Block]:
        """The labels of these values, each within `height` pixels where that can be."""
        width = self.width - _PADDING
        return [fit(self.titles[value], width, self.letters, height) for value in values]


def _band(setting: _Setting, titles: Sequence[str], caption: str) -> _Band:
    if not caption:
        return _Band(("",) * len(titles), 0, setting.letters)
    widest = max(text_width(readable(line), setting.letters) for line in (*titles, caption))
    width = min(widest, max(160, setting.box[0]))
    return _Band(tuple(titles), width + _PADDING, setting.letters)


def _bands(setting: _Setting) -> tuple[_Band, _Band]:
    outer, inner = setting.sides.super_rows, setting.sides.rows
    return (
        _band(setting, [_named(outer, value) for value in range(len(outer.titles))], outer.name),
        _band(setting, [inner.title(value) for value in range(len(inner.titles))], inner.name),
    )


def _named(side: Side, value: int) -> str:
    return f"{side.name}: {side.title(value)}"


def _halves(places: Sequence[Index]) -> tuple[Sequence[Index], Sequence[Index]]:
    """Cut near the middle, between two blocks of the super axis where there are several."""
    middle = (len(places) + 1) // 2
    borders = [cut for cut in range(1, len(places)) if places[cut][0] != places[cut - 1][0]]
    cut = min(borders, key=lambda border: abs(border - middle), default=middle)
    return places[:cut], places[cut:]


def _framed(setting: _Setting, rows: Sequence[Index], columns: Sequence[Index]) -> Frame:
    if len(columns) > LONGEST_LINE and not any(side.name for side in setting.sides.others):
        return _wrapped(setting, columns)
    left = _MARGIN + sum(band.width for band in _bands(setting))
    lefts = _spread(columns, left, [setting.box[0]] * len(columns))
    frame = Frame((max(480, lefts[-1] + setting.box[0] + _MARGIN), 0), setting.box)
    top = _add_heading(frame, setting)
    top = _add_super_columns(frame, setting, columns, lefts, top)
    top = _add_columns(frame, setting, columns, lefts, top)
    tops, heights = _add_rows(frame, setting, rows, top)
    frame.size = (frame.size[0], tops[-1] + heights[-1] + _MARGIN)
    for (super_row, row), y in zip(rows, tops):
        for (super_column, column), x in zip(columns, lefts):
            frame.slots[super_row, row, super_column, column] = (x, y)
    return frame


def _wrapped(setting: _Setting, columns: Sequence[Index]) -> Frame:
    """The columns in lines that make the sheet about as wide as high, each line with its labels."""
    square = max(1, round((len(columns) * setting.box[1] / setting.box[0]) ** 0.5))
    lines = -(-len(columns) // square)
    length = -(-len(columns) // lines)
    lefts = _spread(columns[:length], _MARGIN, [setting.box[0]] * length)
    frame = Frame((max(480, lefts[-1] + setting.box[0] + _MARGIN), 0), setting.box)
    top = _add_axis(frame, setting, columns[:length], lefts, _add_heading(frame, setting))
    for start in range(0, len(columns), length):
        line = columns[start : start + length]
        top = _add_titles(frame, setting, line, lefts, top)
        for (super_column, column), left in zip(line, lefts):
            frame.slots[0, 0, super_column, column] = (left, top)
        top += setting.tall + 2 * _GAP
    frame.size = (frame.size[0], top + _MARGIN)
    return frame


def _captioned(frame: Frame, setting: _Setting) -> Frame:
    """`frame` with what is to stand under its tiles, cut where there is more of it than room."""
    for place, (left, top) in frame.slots.items():
        if text := setting.under.get(place):
            block = fit(text, setting.box[0] - 4 * _GAP, setting.captions)
            block = shortened(block, 2 * line_height(block.size))
            frame.labels.append(Label(block, left, top + setting.box[1], setting.box[0], 0.5, _GREY))
    return frame


def _spread(places: Sequence[Index], start: int, extents: Sequence[int]) -> list[int]:
    """Where each of the places begins: a gap after each, and a wider one between blocks."""
    gaps = [_BLOCK_GAP if after[0] != before[0] else _GAP for before, after in pairwise(places)]
    return list(accumulate((extent + gap for extent, gap in zip(extents, gaps)), initial=start))


def _add_heading(frame: Frame, setting: _Setting) -> int:
    """Put the heading at the top; returns where it ends."""
    sizes = (round(setting.letters * 1.4), setting.letters, setting.captions)
    texts = (setting.heading.title, setting.heading.values, setting.heading.settings)
    top = _MARGIN
    for text, size, colour in zip(texts, sizes, ("black", "black", _GREY)):
        if text:
            block = fit(text, frame.size[0] - 2 * _MARGIN, size)
            frame.labels.append(Label(block, _MARGIN, top, colour=colour))
            top += block.height + _GAP
    return top + 2 * _GAP


def _runs(places: Sequence[Index]) -> Iterator[tuple[int, int, int]]:
    """The blocks of the super axis: its value's index, the first place and the last."""
    for value, run in groupby(enumerate(places), key=lambda entry: entry[1][0]):
        positions = [position for position, _ in run]
        yield value, positions[0], positions[-1]


def _spans(setting: _Setting, columns: Sequence[Index], lefts: Sequence[int]) -> list[tuple[int, int, int]]:
    """For each block of columns: the super axis' value, its left edge and its width."""
    return [
        (value, lefts[first], lefts[last] + setting.box[0] - lefts[first])
        for value, first, last in _runs(columns)
    ]


def _add_super_columns(
    frame: Frame, setting: _Setting, columns: Sequence[Index], lefts: Sequence[int], top: int
) -> int:
    """Put a label and a rule above each block of columns; returns where they end."""
    side = setting.sides.super_columns
    if not side.name:
        return top
    spans = _spans(setting, columns, lefts)
    blocks = [fit(_named(side, value), width, setting.letters) for value, _, width in spans]
    bottom = top + max(block.height for block in blocks)
    for block, (_, left, width) in zip(blocks, spans):
        frame.labels.append(Label(block, left, bottom - block.height, width, 0.5))
        frame.rules.append((left, bottom + 2, left + width - 1, bottom + 3))
    return bottom + 2 * _GAP


def _add_columns(
    frame: Frame, setting: _Setting, columns: Sequence[Index], lefts: Sequence[int], top: int
) -> int:
    """Put the axis' name above each block and a label above each column; returns where the tiles begin."""
    side = setting.sides.columns
    if not side.name:
        return top + (line_height(setting.captions) if setting.sides.rows.name else 0)
    return _add_titles(frame, setting, columns, lefts, _add_axis(frame, setting, columns, lefts, top))


def _add_axis(
    frame: Frame, setting: _Setting, columns: Sequence[Index], lefts: Sequence[int], top: int
) -> int:
    """Put the name of the columns' axis above each block; returns where it ends."""
    captions = [
        (fit(setting.sides.columns.name, width, setting.captions), left, width)
        for _, left, width in _spans(setting, columns, lefts)
    ]
    frame.labels += [Label(block, left, top, width, 0.5, _GREY) for block, left, width in captions]
    return top + max(block.height for block, _, _ in captions)


def _add_titles(
    frame: Frame, setting: _Setting, columns: Sequence[Index], lefts: Sequence[int], top: int
) -> int:
    """Put a label above each column; returns where the tiles begin."""
    side = setting.sides.columns
    width = setting.box[0] - 2 * _GAP  # or labels would run into each other
    blocks = [fit(side.title(column), width, setting.letters) for _, column in columns]
    bottom = top + max(block.height for block in blocks)
    for block, left in zip(blocks, lefts):
        frame.labels.append(Label(block, left, bottom - block.height, setting.box[0], 0.5))
    return bottom + _GAP


def _add_rows(
    frame: Frame, setting: _Setting, rows: Sequence[Index], top: int
) -> tuple[list[int], list[int]]:
    """Put a label beside each row and each block of rows; returns where the rows begin, and their heights."""
    outer, inner = _bands(setting)
    blocks = inner.blocks([row for _, row in rows], setting.box[1])
    heights = [max(setting.tall, block.height) for block in blocks]
    supers = []
    for value, first, last in _runs(rows):
        room = sum(heights[first : last + 1])
        supers.append(outer.blocks([value], room)[0])
        heights[last] += max(0, supers[-1].height - room)
    tops = _spread(rows, top, heights)
    if outer.width:
        for block, (_, first, last) in zip(supers, _runs(rows)):
            bottom = tops[last] + heights[last]
            middle = (tops[first] + bottom - block.height) // 2
            frame.labels.append(Label(block, _MARGIN, middle))
            edge = _MARGIN + outer.width - _PADDING // 2
            frame.rules.append((edge, tops[first], edge + 1, bottom - 1))
    if inner.width:
        left, width = _MARGIN + outer.width, inner.width - _PADDING
        caption = fit(setting.sides.rows.name, width, setting.captions)
        frame.labels.append(Label(caption, left, top - caption.height, width, 1.0, _GREY))
        for block, y in zip(blocks, tops):
            spare = max(0, setting.box[1] - block.height)
            frame.labels.append(Label(block, left, y + spare // 2, width, 1.0))
    return tops, heights
