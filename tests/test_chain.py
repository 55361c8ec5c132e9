import json
import re
from pathlib import Path
from textwrap import dedent

import pytest
from PIL import Image, ImageOps

from farm.cell import Cell, PluginUse, Settings
from farm.chain import Chain, column_of
from farm.errors import CellFailed
from farm.plugins import find_plugins

CELL = Cell(1, (), Settings(model="m", prompt="a red cat", seed=7))
GREY = Image.new("RGB", (6, 4), (100, 100, 100))
DOCS = Path(__file__).parents[1] / "docs" / "plugins.md"


@pytest.fixture
def chain(tmp_path):
    """A chain of plugins that are written here, in this order; `_settings` gives some their settings."""

    def _chain(_settings=None, **sources):
        for name, source in sources.items():
            text = f"from farm.hooks import *\n{dedent(source)}"
            (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        settings = {name: json.dumps((_settings or {}).get(name, {})) for name in sources}
        plugins = find_plugins([tmp_path])
        uses = [
            PluginUse(name, plugins[name].version, settings[name], plugins[name].touches_pixels)
            for name in sources
        ]
        return Chain(tuple(uses), [tmp_path])

    return _chain


def adds(number):
    return f"@hookimpl\ndef transform_image(image): return image.point(lambda value: {number})"


def screens(verdict):
    return f"@hookimpl\ndef screen_image(image): return Verdict({verdict})"


SCORES_RED = "@hookimpl\ndef score_image(image): return {'red': image.getpixel((0, 0))[0]}"


def test_without_plugins_the_picture_stays():
    finished = Chain((), []).finish(GREY, CELL)
    assert finished.image is GREY
    assert finished.columns == {}


@pytest.mark.parametrize(("order", "value"), [(["double", "more"], 201), (["more", "double"], 202)])
def test_transforms_run_in_the_order_of_the_job_and_scores_see_the_result(chain, order, value):
    sources = {"double": adds("2 * value"), "more": adds("value + 1")}
    finished = chain(zebra=SCORES_RED, **{name: sources[name] for name in order}).finish(GREY, CELL)
    assert finished.image.getpixel((0, 0)) == (value,) * 3
    assert finished.columns == {"zebra.red": value}
    assert GREY.getpixel((0, 0)) == (100, 100, 100)


def test_hooks_get_the_cell_and_their_settings(chain):
    source = """
        class Wanted(PluginSettings):
            offset: float = 0
        @hookimpl
        def settings_model(): return Wanted
        @hookimpl
        def score_image(settings, cell, image): return {'sum': cell.settings.seed + settings.offset}
    """
    assert chain({"calc": {"offset": 0.5}}, calc=source).finish(GREY, CELL).columns == {"calc.sum": 7.5}


@pytest.mark.parametrize(
    ("verdict", "column", "red"),
    [
        ("False", "passed", 100),
        ("True, 'a nose'", "a nose", 0),
        ("True, 'a nose', 'mark'", "a nose", 100),
        ("False, 'not sure'", "passed", 100),
    ],
)
def test_a_verdict_is_carried_out_and_stands_in_the_column(chain, verdict, column, red):
    finished = chain(look=screens(verdict), score=SCORES_RED).finish(GREY, CELL)
    assert finished.columns == {"look": column, "score.red": red}
    assert finished.image.size == GREY.size
    assert finished.image.mode == "RGB"
    assert finished.image.getcolors() == [(GREY.width * GREY.height, (red,) * 3)]


def test_every_screen_sees_the_picture_as_transformed(chain):
    second = "@hookimpl\ndef screen_image(image): return Verdict(image.getpixel((0, 0))[0] == 150, 'saw 150')"
    finished = chain(first=screens("True, 'no'"), second=second, grow=adds(150)).finish(GREY, CELL)
    assert finished.columns == {"first": "no", "second": "saw 150"}


@pytest.mark.parametrize(
    ("key", "column"),
    [("sharp", "sharp"), ("sharp.x", "sharp.x"), ("x", "sharp.x"), ("sharpest", "sharp.sharpest")],
)
def test_columns_carry_the_name_of_their_plugin(key, column):
    assert column_of("sharp", key) == column


WRONG = [
    (adds("1 / 0"), "transform_image: ZeroDivisionError: division by zero"),
    ("@hookimpl\ndef transform_image(): raise KeyError", "transform_image: KeyError"),
    (
        "@hookimpl\ndef transform_image(): raise ValueError('two\\nlines')",
        "transform_image: ValueError: two lines",
    ),
    ("@hookimpl\ndef transform_image(): raise SystemExit(1)", "transform_image: SystemExit: 1"),
    ("@hookimpl\ndef transform_image(): pass", "transform_image: it returned NoneType, not Image"),
    (
        "@hookimpl\ndef transform_image(image): return image.convert('L')",
        "transform_image: it returned a picture of mode L, not RGB",
    ),
    ("@hookimpl\ndef screen_image(): return True", "screen_image: it returned bool, not Verdict"),
    (screens("True"), "screen_image: ValueError: a verdict that flags a picture needs a reason"),
    ("@hookimpl\ndef score_image(): return 3.5", "score_image: it returned float, not dict"),
    ("@hookimpl\ndef score_image(): return {'x': '3'}", "score_image: bad.x is '3', not a finite number"),
    (
        "@hookimpl\ndef score_image(): return {'x': float('nan')}",
        "score_image: bad.x is nan, not a finite number",
    ),
    ("@hookimpl\ndef score_image(): return {1: 2}", "score_image: 1 is no name for a score"),
    (
        "@hookimpl\ndef score_image(): return {'x': 1, 'bad.x': 2}",
        "score_image: column bad.x is there already",
    ),
]


@pytest.mark.parametrize(("source", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_plugin_at_fault_fails_the_cell_by_name(chain, source, message):
    with pytest.raises(CellFailed) as caught:
        chain(good=SCORES_RED, bad=source).finish(GREY, CELL)
    assert str(caught.value) == f"plugin 'bad' failed in {message}"


def test_unavailable_in_a_hook_speaks_for_itself(chain):
    with pytest.raises(CellFailed, match="^plugin 'gpu' needs a bigger card$"):
        chain(gpu="@hookimpl\ndef score_image(): raise Unavailable('needs a bigger card')").finish(GREY, CELL)


def test_drawing_on_the_image_reaches_nobody_else(chain):
    smears = "@hookimpl\ndef score_image(image):\n  image.paste(0, (0, 0, 6, 4))\n  return {'x': 1}"
    finished = chain(smears=smears, score=SCORES_RED).finish(GREY, CELL)
    assert finished.columns["score.red"] == 100
    assert finished.image.getpixel((0, 0)) == (100, 100, 100)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (("gone", "1", "{}"), "plugin 'gone' is not on this machine"),
        (("old", "1", "{}"), "plugin 'old' is version 2 on this machine, but the job was planned with 1"),
        (("old", "2", '{"a": 1}'), "plugin 'old' refuses its settings: .*Extra inputs"),
        (("broken", "1", "{}"), r"plugin 'broken' \(.*\) cannot be loaded: ZeroDivisionError: "),
    ],
)
def test_what_cannot_be_loaded_here_fails_each_cell(tmp_path, use, message):
    (tmp_path / "old.py").write_text(f"from farm.hooks import *\n__version__ = '2'\n{SCORES_RED}")
    (tmp_path / "broken.py").write_text("1 / 0")
    chain = Chain((PluginUse(*use, touches_pixels=False),), [tmp_path])
    for _ in range(2):
        with pytest.raises(CellFailed, match=message):
            chain.finish(GREY, CELL)


def test_the_example_in_the_docs_runs(tmp_path):
    example = re.search(r"```python\n(from farm.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len(example.strip().splitlines()) <= 20
    (tmp_path / "posterize.py").write_text(example)
    info = find_plugins([tmp_path])["posterize"]
    use = PluginUse("posterize", info.version, '{"bits": 2}', info.touches_pixels)
    gradient = Image.linear_gradient("L").convert("RGB")
    finished = Chain((use,), [tmp_path]).finish(gradient, CELL)
    assert finished.image.tobytes() == ImageOps.posterize(gradient, 2).tobytes()
