"""The squares of a sheet: a stored picture, or words about why there is none."""

import struct
from pathlib import Path

from PIL import Image, ImageDraw

from farm.cell import Cell
from farm.errors import FarmError
from farm.results.infotext import open_picture
from farm.results.journal import Record
from farm.results.lettering import draw, fit, shortened

Size = tuple[int, int]
"""Width and height in pixels."""

_FAILED = {"ground": "#fdecea", "edge": "#c62828", "text": "#7f1d1d"}
_QUIET = {"ground": "#f4f4f4", "edge": "#d0d0d0", "text": "#767676"}
_SMALL = 256
"""Up to this many pixels a side, pictures are enlarged pixel by pixel, so that they stay sharp."""


def picture_size(png: Path) -> Size | None:
    """Width and height from the header of a PNG file; None if it is no such file."""
    try:
        with png.open("rb") as file:
            header = file.read(24)
    except OSError:
        return None
    if len(header) < 24 or header[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    width, height = struct.unpack(">II", header[16:24])
    return width, height


def tile(cell: Cell | None, record: Record | None, folder: Path, box: Size) -> Image.Image:
    """The square for one place of the sheet, in RGB.

    Args:
        cell: what was wanted there; None if a rule skipped it.
        record: what came of it; None if it is pending.
        folder: the job's, under which the picture lies.
        box: the tile's size.
    """
    if cell is None:
        return _words("skipped", "", box, _QUIET)
    if record is None:
        return _words("pending", "", box, _QUIET)
    if record.status == "failed":
        return _words("failed", record.error, box, _FAILED)
    try:
        return _picture(folder / record.file, box)
    except FarmError as error:
        return _words("unreadable", str(error), box, _FAILED)


def _picture(png: Path, box: Size) -> Image.Image:
    try:
        with open_picture(png) as stored:
            picture = _on_white(stored)
    except (OSError, SyntaxError, ValueError) as error:
        raise FarmError(f"{png.name}: {error}") from error
    ground = Image.new("RGB", box, "white")
    scaled = _scaled(picture, box)
    ground.paste(scaled, ((box[0] - scaled.width) // 2, (box[1] - scaled.height) // 2))
    return ground


def _on_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _scaled(picture: Image.Image, box: Size) -> Image.Image:
    factor = min(box[0] / picture.width, box[1] / picture.height)
    if factor == 1:
        return picture
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    tiny = factor >= 2 and max(picture.size) <= _SMALL
    return picture.resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.LANCZOS)


def _words(heading: str, reason: str, box: Size, colours: dict[str, str]) -> Image.Image:
    ground = Image.new("RGB", box, colours["ground"])
    canvas = ImageDraw.Draw(ground)
    canvas.rectangle((0, 0, box[0] - 1, box[1] - 1), outline=colours["edge"], width=1 if not reason else 2)
    margin = max(4, box[0] // 24)
    room = (box[0] - 2 * margin, box[1] - 2 * margin)
    size = min(28, max(11, box[0] // 12))
    title = fit(heading, room[0], size)
    body = shortened(fit(reason, room[0], size, room[1] - title.height), room[1] - title.height)
    top = (box[1] - title.height - body.height) // 2
    draw(canvas, title, 0, top, width=box[0], align=0.5, colour=colours["edge" if reason else "text"])
    draw(canvas, body, 0, top + title.height, width=box[0], align=0.5, colour=colours["text"])
    return ground
