"""Annotated grids of a job's stored pictures, one for each combination of the page axes' values."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image, ImageDraw

from farm.plan import Plan
from farm.results.frame import Frame, Heading
from farm.results.grid import frames
from farm.results.journal import Record
from farm.results.labels import LONGEST, labels
from farm.results.lettering import draw
from farm.results.names import slug
from farm.results.pages import EMPTY, Page, heading, pages, sides
from farm.results.tiles import Size, picture_size, tile
from farm.results.whole import whole_file
from farm.results.writing import shown

SHEETS = "sheets"
_STEM = "sheet"


def write_sheets(plan: Plan, records: Mapping[str, Record], folder: Path) -> list[Path]:
    """Write the sheets of a job, and remove those of an earlier layout.

    A sheet that would be larger than image viewers bear is written in parts, `…-part1.png` and so on. One
    picture is open at a time.

    Args:
        plan: the whole plan, with final keys.
        records: what came of its cells, by key.
        folder: the job's; pictures are read from it.

    Returns:
        The files, in the order of the pages.

    Raises:
        FarmError: a sheet cannot be written.
    """
    written = list(each_sheet(plan, records, folder))
    for stale in set((folder / SHEETS).glob(f"{_STEM}*.png")) - set(written):
        stale.unlink(missing_ok=True)
    return written


def each_sheet(plan: Plan, records: Mapping[str, Record], folder: Path) -> Iterator[Path]:
    """As `write_sheets`, one file after the other as they are taken; nothing is removed."""
    for stem, page in _named_pages(plan):
        yield from _write_page(plan, stem, page, records, folder)


def _named_pages(plan: Plan) -> Iterator[tuple[str, Page]]:
    for number, page in enumerate(pages(plan), start=1):
        values = slug("-".join(slug(f"{name}-{title}", 40) for name, title in page.values), 90)
        yield (f"{_STEM}-{number:03d}-{values}" if page.values else _STEM), page


def _write_page(
    plan: Plan, stem: str, page: Page, records: Mapping[str, Record], folder: Path
) -> Iterator[Path]:
    told = labels(plan, page.cells.values(), longest=LONGEST)
    captions = {
        place: told.captions[cell.number]
        for place, cell in page.cells.items()
        if cell.number in told.captions
    }
    above = _heading(plan, page, told.heading)
    parts = frames(sides(plan, told.titles), above, _box(page, records, folder), captions)
    for number, frame in enumerate(parts, start=1):
        suffix = f"-part{number}" if len(parts) > 1 else ""
        path = folder / SHEETS / f"{stem}{suffix}.png"
        with whole_file(path) as file:
            _drawn(frame, page, records, folder).save(file, "PNG", compress_level=3)
        yield path


def _heading(plan: Plan, page: Page, prompts: Mapping[str, str]) -> Heading:
    swept = {axis.name for axis in plan.axes}
    told = heading(plan, page.cells.values(), prompts)
    shared = {name: value for name, value in told.items() if name not in swept or name in prompts}
    if "width" in shared and "height" in shared:
        shared["size"] = f"{shared.pop('width')}x{shared.pop('height')}"
    return Heading(
        title=plan.name,
        values=" · ".join(f"{name}: {title.strip() or EMPTY}" for name, title in page.values),
        settings=" · ".join(f"{name}: {shown(value)}" for name, value in shared.items()),
    )


def _box(page: Page, records: Mapping[str, Record], folder: Path) -> Size:
    """The size of the largest picture, which all of the page's tiles get."""
    sizes = []
    for cell in page.cells.values():
        record = records.get(cell.key)
        stored = picture_size(folder / record.file) if record and record.file else None
        sizes.append(stored or (cell.settings.width, cell.settings.height))
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _drawn(frame: Frame, page: Page, records: Mapping[str, Record], folder: Path) -> Image.Image:
    sheet = Image.new("RGB", frame.size, "white")
    canvas = ImageDraw.Draw(sheet)
    for left, top, right, bottom in frame.rules:
        canvas.rectangle((left, top, right, bottom), fill="#b0b0b0")
    for label in frame.labels:
        draw(
            canvas,
            label.block,
            label.left,
            label.top,
            width=label.width,
            align=label.align,
            colour=label.colour,
        )
    for place, (left, top) in frame.slots.items():
        cell = page.cells.get(place)
        record = records.get(cell.key) if cell else None
        sheet.paste(tile(cell, record, folder, frame.box), (left, top))
    return sheet
