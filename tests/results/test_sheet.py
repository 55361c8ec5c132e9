from dataclasses import replace
from itertools import product

import pytest
from PIL import Image, ImageChops

from farm.plan import Layout
from farm.results import grid
from farm.results.frame import Heading
from farm.results.journal import Record
from farm.results.pages import Side, Sides
from farm.results.sheet import write_sheets
from farm.results.store import Store
from farm.results.tiles import picture_size, tile
from tests.results.samples import done, failed, make_plan, picture

SAMPLERS = ["Euler a", "DPM++ 2M Karras", "Heun"]


def render(plan, folder, outcome=done):
    with Store(folder, plan) as store:
        for cell in plan.cells:
            result = outcome(cell)
            if result is not None:
                store.write(result)
        return store.records()


def occurrences(sheet, cell, scale):
    """Where a cell's picture stands on the sheet, found by its pixels."""
    wanted = picture(cell)
    wanted = wanted.resize((wanted.width * scale, wanted.height * scale), Image.Resampling.NEAREST)
    colour = wanted.getpixel((0, 0))
    bands = [
        band.point([255 * (value == want) for value in range(256)])
        for band, want in zip(sheet.split(), colour)
    ]
    found = ImageChops.multiply(ImageChops.multiply(bands[0], bands[1]), bands[2]).getbbox()
    if found is None or (found[2] - found[0], found[3] - found[1]) != wanted.size:
        return None
    same = ImageChops.difference(sheet.crop(found), wanted).getbbox() is None
    return found[:2] if same else None


def test_every_picture_stands_in_its_place(tmp_path):
    plan = make_plan(
        {"sampler": SAMPLERS, "cfg_scale": [1, 7], "steps": [5, 20], "seed": [1, 2]},
        Layout("cfg_scale", "sampler", "steps", "seed"),
    )
    [path] = write_sheets(plan, render(plan, tmp_path), tmp_path)
    sheet = Image.open(path).convert("RGB")
    places = {cell.coordinates: occurrences(sheet, cell, 2) for cell in plan.cells}
    assert None not in places.values()
    # to the right: steps outermost, then cfg_scale; downwards: seed outermost, then sampler
    rightwards = sorted(
        plan.cells, key=lambda cell: (places[cell.coordinates][0], places[cell.coordinates][1])
    )
    expected = sorted(plan.cells, key=lambda cell: [cell.coordinates[axis] for axis in (2, 1, 3, 0)])
    assert [cell.number for cell in rightwards] == [cell.number for cell in expected]


def test_one_sheet_for_each_combination_of_the_pages(tmp_path):
    plan = make_plan(
        {"sampler": SAMPLERS, "cfg_scale": [1, 7], "steps": [5, 20], "seed": [1, 2]},
        Layout("cfg_scale", "sampler", pages=("steps",)),  # seed has no place: it pages as well
        skip=lambda cell: cell.settings.steps == 5 and cell.settings.seed == 2,
    )
    paths = write_sheets(plan, render(plan, tmp_path), tmp_path)
    assert [path.name for path in paths] == [
        "sheet-001-steps-5-seed-1.png", "sheet-002-steps-20-seed-1.png", "sheet-003-steps-20-seed-2.png",
    ]  # fmt: skip
    shown = [
        [cell.number for cell in plan.cells if occurrences(Image.open(path).convert("RGB"), cell, 2)]
        for path in paths
    ]
    wanted = [(5, 1), (20, 1), (20, 2)]
    assert shown == [
        [cell.number for cell in plan.cells if (cell.settings.steps, cell.settings.seed) == page]
        for page in wanted
    ]


def test_sheets_of_an_earlier_layout_go(tmp_path):
    plan = make_plan({"sampler": SAMPLERS, "steps": [5, 20]}, Layout("sampler", pages=("steps",)))
    records = render(plan, tmp_path)
    write_sheets(plan, records, tmp_path)
    (tmp_path / "sheets" / "mine.png").write_bytes(b"a person's own")
    paths = write_sheets(replace(plan, layout=Layout("sampler", "steps")), records, tmp_path)
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["mine.png", "sheet.png"]
    assert [path.name for path in paths] == ["sheet.png"]


@pytest.mark.parametrize(("limit", "value"), [("LONGEST_SIDE", 600), ("MOST_PIXELS", 300_000)])
def test_a_huge_sheet_is_cut_into_parts_and_loses_nothing(tmp_path, monkeypatch, limit, value):
    plan = make_plan({"seed": range(7), "steps": range(1, 6)}, Layout("seed", "steps"))
    records = render(plan, tmp_path)
    monkeypatch.setattr(grid, limit, value)
    paths = write_sheets(plan, records, tmp_path)
    assert [path.name for path in paths] == [f"sheet-part{number + 1}.png" for number in range(len(paths))]
    sheets = [Image.open(path).convert("RGB") for path in paths]
    for sheet in sheets:
        assert max(sheet.size) <= value if limit == "LONGEST_SIDE" else sheet.width * sheet.height <= value
    for cell in plan.cells:
        assert sum(occurrences(sheet, cell, 2) is not None for sheet in sheets) == 1


def test_the_limits_are_what_viewers_bear():
    assert grid.LONGEST_SIDE <= 65_000 and 2 * Image.MAX_IMAGE_PIXELS > grid.MOST_PIXELS
    frames = grid.frames(
        Sides(*(Side(name, tuple(map(str, range(10)))) for name in "abcd")),
        Heading("job", "", ""),
        (512, 512),
    )
    assert sum(len(frame.slots) for frame in frames) == 10_000
    assert len({place for frame in frames for place in frame.slots}) == 10_000
    assert all(frame.size[0] * frame.size[1] <= grid.MOST_PIXELS for frame in frames)


def test_a_picture_larger_than_any_sheet_is_scaled_down():
    [frame] = grid.frames(Sides(*[Side("", ("",))] * 4), Heading("job", "", ""), (40_000, 20_000))
    assert max(frame.size) <= grid.LONGEST_SIDE and frame.box[0] == 2 * frame.box[1]


@pytest.mark.parametrize("side", ["columns", "rows", "super_columns", "super_rows"])
@pytest.mark.parametrize(
    "titles", [["short", "a long prompt, " * 40], ["x" * 400, "y"], ["", "(unlabelled)"], ["猫" * 50, "a\nb"]]
)
def test_labels_lie_whole_on_the_sheet_and_over_nothing(side, titles):
    axes = {name: Side("", ("",)) for name in ("super_rows", "rows", "super_columns", "columns")}
    axes |= {"columns": Side("seed", ("1", "2", "3"))} if side != "columns" else {}
    axes[side] = Side("prompt", tuple(titles))
    [frame] = grid.frames(Sides(**axes), Heading("job", "page: 1", "prompt: x " * 50), (64, 64))
    _check_that_nothing_overlaps(frame)
    text = "".join("".join(label.block.lines) for label in frame.labels)
    for title in titles:
        escaped = title if title.isascii() else grid.readable(title)
        assert "".join(escaped.split()) in "".join(text.split())


@pytest.mark.parametrize(
    ("values", "size", "lines"),
    [(16, (64, 64), 1), (17, (64, 64), 5), (120, (64, 64), 11), (120, (64, 128), 8), (120, (256, 64), 24)],
)
def test_an_axis_that_has_the_sheet_for_itself_goes_on_in_lines(values, size, lines):
    titles = tuple(f"a ginger cat in front of the number {number}" for number in range(values))
    alone, columns = Side("", ("",)), Side("prompt", titles)
    [frame] = grid.frames(Sides(alone, alone, alone, columns), Heading("job", "", "x"), size)
    _check_that_nothing_overlaps(frame)
    assert list(frame.slots) == [(0, 0, 0, number) for number in range(values)]
    assert len({top for _, top in frame.slots.values()}) == lines
    for (_, _, _, number), (left, top) in frame.slots.items():  # each has its own label above it
        [label] = [one for one in frame.labels if " ".join(one.block.lines) == titles[number]]
        assert label.left == left and 0 <= top - (label.top + label.block.height) < 10
    in_rows = grid.frames(Sides(alone, columns, alone, alone), Heading("job", "", "x"), size)
    assert len({left for left, _ in in_rows[0].slots.values()}) == 1


def _check_that_nothing_overlaps(frame):
    boxes = [(*_ink(label), text) for label in frame.labels if (text := " ".join(label.block.lines))] + [
        (x, y, x + frame.box[0], y + frame.box[1], "tile") for x, y in frame.slots.values()
    ]
    for left, top, right, bottom, _ in boxes:
        assert min(left, top) >= 0 and right <= frame.size[0] and bottom <= frame.size[1]
    for index, one in enumerate(boxes):
        for other in boxes[index + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, (one, other)


@pytest.mark.parametrize("side", ["columns", "rows"])
def test_a_long_label_leaves_the_others_their_size(side):
    long = "extraordinarilylongwordwithoutaseam"
    axes = {name: Side("", ("",)) for name in ("super_rows", "rows", "super_columns", "columns")}
    axes[side] = Side("sampler", ("Euler", long))
    [frame] = grid.frames(Sides(**axes), Heading("job", "", ""), (128, 128))
    sizes = {"".join(label.block.lines): label.block.size for label in frame.labels}
    assert sizes[long] < sizes["Euler"] == 14


def _ink(label):
    spare = round((label.width - label.block.width) * label.align)
    left = label.left + spare
    return left, label.top, left + label.block.width, label.top + label.block.height


def test_pictures_of_other_sizes_keep_their_shape(tmp_path):
    plan = make_plan({"width": [64, 256], "height": [64, 128]}, Layout("width", "height"))
    records = render(plan, tmp_path)
    small, _, _, _ = plan.cells
    shown = tile(small, records[small.key], tmp_path, (256, 128))
    assert shown.crop((64, 0, 192, 128)).getcolors() and shown.getpixel((10, 60)) == (255, 255, 255)
    assert shown.crop((64, 0, 192, 128)).tobytes() == picture(small).resize((128, 128), 0).tobytes()
    [path] = write_sheets(plan, records, tmp_path)
    assert Image.open(path).width >= 2 * 256


def test_every_kind_of_cell_without_picture_looks_different(tmp_path):
    plan = make_plan({"cfg_scale": [1, 2]})
    cell, other = plan.cells
    record = Record(cell.key, 1, "failed", error="out of memory: " + "very " * 100)
    gone = Record(other.key, 2, "done", file="images/gone.png", size=1)
    tiles = [
        tile(None, None, tmp_path, (128, 128)),
        tile(cell, None, tmp_path, (128, 128)),
        tile(cell, record, tmp_path, (128, 128)),
        tile(other, gone, tmp_path, (128, 128)),
    ]
    assert len({shown.tobytes() for shown in tiles}) == 4
    assert all(shown.size == (128, 128) and len(shown.getcolors(16384)) > 2 for shown in tiles)


def test_a_job_without_any_picture_still_gets_its_sheet(tmp_path):
    plan = make_plan({"cfg_scale": [1, 2]}, Layout("cfg_scale"))
    [path] = write_sheets(plan, render(plan, tmp_path, failed), tmp_path)
    assert Image.open(path).width > 2 * 128
    [path] = write_sheets(make_plan(), {}, tmp_path / "empty")
    assert path.is_file()


@pytest.mark.slow
def test_a_damaged_picture_costs_its_own_tile_only(tmp_path):
    plan = make_plan({"cfg_scale": [1, 2]}, Layout("cfg_scale"))
    records = render(plan, tmp_path)
    damaged = tmp_path / records[plan.cells[0].key].file
    whole = damaged.read_bytes()
    for length in range(0, len(whole), 9):
        damaged.write_bytes(whole[:length])
        shown = tile(plan.cells[0], records[plan.cells[0].key], tmp_path, (128, 128))
        assert shown.size == (128, 128)
    for position in range(8, len(whole), 3):
        damaged.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        tile(plan.cells[0], records[plan.cells[0].key], tmp_path, (128, 128))
    [path] = write_sheets(plan, records, tmp_path)
    assert occurrences(Image.open(path).convert("RGB"), plan.cells[1], 2)


def test_our_own_pictures_are_not_taken_for_bombs(tmp_path, monkeypatch):
    plan = make_plan({"cfg_scale": [1, 2]}, Layout("cfg_scale"))
    records = render(plan, tmp_path, lambda cell: done(cell, size=(256, 256)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    for cell in plan.cells:
        with pytest.raises(Image.DecompressionBombError):
            Image.open(tmp_path / records[cell.key].file)
        assert (
            tile(cell, records[cell.key], tmp_path, (256, 256)).tobytes()
            == picture(cell, (256, 256)).tobytes()
        )
    [path] = write_sheets(plan, records, tmp_path)
    assert picture_size(path)[0] >= 2 * 256


def test_transparent_pictures_stand_on_white(tmp_path):
    plan = make_plan()
    cell = plan.cells[0]
    (tmp_path / "images").mkdir()
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "images" / "a.png")
    shown = tile(cell, Record(cell.key, 1, "done", "images/a.png", 1), tmp_path, (64, 64))
    assert shown.getcolors() == [(64 * 64, (255, 255, 255))]


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (64, 512)])
def test_captions_lie_under_their_tiles_in_two_lines(size):
    axes = {name: Side(f"axis of {name}", ("1", "a longer one " * 9)) for name in ("super_rows", "rows")}
    axes |= {name: Side(f"axis of {name}", ("1", "2", "3")) for name in ("super_columns", "columns")}
    places = list(product(range(2), range(2), range(3), range(3)))
    texts = ["gray … blue", "", "a very long caption of many words, " * 9, "w" * 300]
    captions = {place: texts[number % 4] for number, place in enumerate(places)}
    [frame] = grid.frames(Sides(**axes), Heading("job", "", "x"), size, captions)
    _check_that_nothing_overlaps(frame)
    for place, text in captions.items():
        left, top = frame.slots[place]
        found = [one for one in frame.labels if (one.left, one.top) == (left, top + frame.box[1])]
        assert len(found) == bool(text)
        for label in found:
            assert len(label.block.lines) <= 2 and label.width == frame.box[0]
            assert " ".join(label.block.lines).startswith(text[:6])
            assert label.block.lines[-1].endswith("…") or " ".join(label.block.lines) == text


def test_what_cells_draw_is_written_under_them(tmp_path):
    plan = make_plan({"cfg_scale": [1, 7], "seed": [1, 2]}, Layout("cfg_scale", "seed"))
    cells = [
        replace(cell, settings=replace(cell.settings, prompt=f"a {colour} cat"))
        for cell, colour in zip(plan.cells, ("red", "blue", "blue", "red"))
    ]
    told = replace(plan, cells=tuple(cells))
    [plain] = write_sheets(plan, render(plan, tmp_path), tmp_path)
    height = picture_size(plain)[1]
    [path] = write_sheets(told, render(told, tmp_path), tmp_path)
    assert picture_size(path)[1] > height + 2 * 2 * 10
    sheet = Image.open(path).convert("RGB")
    for cell in told.cells:
        left, top = occurrences(sheet, cell, 2)
        assert min(sheet.crop((left, top + 128, left + 128, top + 150)).convert("L").getdata()) < 128


def test_a_sheet_has_short_labels_and_a_heading_about_them(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("farm.results.sheet.frames", lambda *asked: seen.append(asked) or grid.frames(*asked))
    texts = [f"a {animal} " + "very " * 50 for animal in ("cat", "dog")]
    plan = make_plan({"prompt": texts, "steps": [1, 2]}, Layout("prompt", pages=("steps",)))
    plan = replace(
        plan,
        cells=tuple(
            replace(cell, settings=replace(cell.settings, prompt=cell.settings.prompt + "old"))
            for cell in plan.cells
        ),
    )
    write_sheets(plan, {}, tmp_path)
    assert len(seen) == 2
    for sides, heading, _, captions in seen:
        assert [len(title) <= 160 and title[2:5] for title in sides.columns.titles] == ["cat", "dog"]
        assert f"prompt: a … {'very ' * 50}old ·" in heading.settings and captions == {}
        assert "steps" not in heading.settings
