"""Text on pictures: wrapped by words, shrunk until it fits, in a font that has its characters."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from PIL import ImageDraw, ImageFont

SMALLEST = 9
"""The smallest size, in pixels, at which letters can be read."""

_SIZES = (32, 28, 24, 20, 18, 16, 14, 13, 12, 11, 10, SMALLEST)

_FALLBACKS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf", "segoeui.ttf",
    "LiberationSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf",
    "Hiragino Sans GB.ttc", "PingFang.ttc", "msyh.ttc", "msgothic.ttc", "malgun.ttf", "seguisym.ttf",
)  # fmt: skip
"""Where Linux, macOS and Windows keep letters that Pillow's own font (Latin without accents) lacks."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Block:
    """Text set in lines.

    Attributes:
        lines: from top to bottom.
        size: of the letters, in pixels.
        width: of the widest line, in pixels.
        height: of all lines, in pixels.
    """

    lines: tuple[str, ...]
    size: int
    width: int
    height: int


@lru_cache(maxsize=8192)
def fit(text: str, width: int, size: int, height: int | None = None) -> Block:
    """Set `text` within `width` pixels: in letters of `size`, or smaller ones where it does not fit.

    Lines end between words; where one alone is too wide, at a seam in it, as there are in
    `diffusers:|Euler|Discrete|Scheduler(|option=|1)`; and only where even the smallest letters leave a part
    too wide, anywhere. Where `height` is too little for the smallest letters, the block is higher: nothing is
    cut off.
    """
    smaller = [candidate for candidate in _SIZES if candidate < size]
    for candidate in (size, *smaller):
        block = _set(text, width, candidate, breaking=False)
        if block.width <= width and (height is None or block.height <= height):
            return block
    return _set(text, width, min(size, SMALLEST), breaking=True)


def shortened(block: Block, height: int) -> Block:
    """`block` within `height` pixels, its last line ending in `…` if lines had to go."""
    room = max(1, height // line_height(block.size))
    if len(block.lines) <= room:
        return block
    lines = (*block.lines[: room - 1], block.lines[room - 1][:-1] + "…")
    return Block(lines, block.size, block.width, room * line_height(block.size))


def draw(
    canvas: ImageDraw.ImageDraw,
    block: Block,
    left: int,
    top: int,
    *,
    width: int = 0,
    align: float = 0.0,
    colour: str = "black",
) -> None:
    """Draw a block whose upper left corner is (left, top).

    Args:
        canvas: to draw on.
        block: the text.
        left: in pixels.
        top: in pixels.
        width: of the field in which lines are aligned, in pixels.
        align: 0 puts lines to the left of the field, 0.5 into its middle, 1 to its right.
        colour: of the letters.
    """
    for number, line in enumerate(block.lines):
        indent = round((width - text_width(line, block.size)) * align) if align else 0
        _draw_line(canvas, line, left + indent, top + number * line_height(block.size), block.size, colour)


def _draw_line(canvas: ImageDraw.ImageDraw, line: str, left: float, top: int, size: int, colour: str) -> None:
    baseline = top + size
    for font, run in _runs(line, size):
        anchor = "ls" if isinstance(font, ImageFont.FreeTypeFont) else None
        canvas.text((left, baseline if anchor else top), run, fill=colour, font=font, anchor=anchor)
        left += font.getlength(run)


def line_height(size: int) -> int:
    """From one line to the next, in pixels."""
    return round(size * 1.3)


@lru_cache(maxsize=65536)
def text_width(line: str, size: int) -> int:
    """Of one line, in whole pixels."""
    return math.ceil(sum(font.getlength(run) for font, run in _runs(line, size)))


def _set(text: str, width: int, size: int, *, breaking: bool) -> Block:
    lines = tuple(
        line for part in readable(text).split("\n") for line in _wrapped(part, width, size, breaking)
    )
    widest = max((text_width(line, size) for line in lines), default=0)
    return Block(lines, size, widest, len(lines) * line_height(size))


def _wrapped(text: str, width: int, size: int, breaking: bool) -> Iterator[str]:
    line, extent, space = "", 0, text_width(" ", size)
    one_font = text.isascii()  # else a word may be set in another font once it stands beside others
    for gap, word in _words(text, width, size):
        whole = f"{line}{gap}{word}"
        summed = one_font and gap
        longer = extent + space + text_width(word, size) if summed else text_width(whole, size)
        if line and longer <= width:
            line, extent = whole, longer
            continue
        if line:
            yield line
        *pieces, line = _broken(word, width, size) if breaking else [word]
        yield from pieces
        extent = text_width(line, size)
    if line:
        yield line


_SEAMS = re.compile(r"(?<=[:(,=/])(?![:(,=/])|(?<=[a-z])(?=[A-Z])")


def _words(text: str, width: int, size: int) -> Iterator[tuple[str, str]]:
    """What stays whole in a line, and the gap before it: words, and the parts of those that are too wide."""
    for word in text.split():
        first, *others = [word] if text_width(word, size) <= width else _SEAMS.split(word)
        yield " ", first
        yield from (("", part) for part in others)


def _broken(word: str, width: int, size: int) -> list[str]:
    pieces = [""]
    for character in word:
        if pieces[-1] and text_width(pieces[-1] + character, size) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def readable(text: str) -> str:
    """`text` with each character that no font has in place of its escape, so that none becomes a box."""
    return "".join(
        character if character.isspace() or _face_index(character) is not None else _escape(character)
        for character in text
        if character not in "\u200b\u200c\u200d\ufe0e\ufe0f"  # no width, no ink
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _runs(line: str, size: int) -> Iterator[tuple[Font, str]]:
    """The line in pieces of one font each; one font for all of it, where one has all."""
    fonts = _fonts(size)
    for index in range(len(fonts)):
        if all(_has(index, character) for character in line if not character.isspace()):
            yield fonts[index], line
            return
    for face, characters in groupby(line, lambda character: _face_index(character) or 0):
        yield fonts[face], "".join(characters)


@lru_cache(maxsize=4096)
def _face_index(character: str) -> int | None:
    return next((index for index in range(len(_fonts(20))) if _has(index, character)), None)


@lru_cache(maxsize=16384)
def _has(face: int, character: str) -> bool:
    """Whether a font has a glyph for `character`: it draws another than for a code that is no character."""
    font = _fonts(20)[face]
    if not isinstance(font, ImageFont.FreeTypeFont):
        return character.isascii() and character.isprintable()
    glyph, missing = font.getmask(character), font.getmask("\U0010fffe")
    return glyph.getbbox() is not None and (glyph.size, bytes(glyph)) != (missing.size, bytes(missing))


@lru_cache(maxsize=64)
def _fonts(size: int) -> tuple[Font, ...]:
    """Pillow's own font first, then what the system has; the same order at every size."""
    found = [ImageFont.load_default(size)]
    for name in _FALLBACKS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)
