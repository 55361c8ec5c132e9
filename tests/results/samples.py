from itertools import product

from PIL import Image

from farm.axes import Axis, AxisValue
from farm.cell import SETTING_NAMES, Cell, Outcome, PluginUse, Settings
from farm.plan import Layout, Plan
from farm.results.infotext import png_bytes

HASH = "5be3f4a6" * 8


def score(name, version="1", settings="{}"):
    """The use of a plugin that only scores."""
    return PluginUse(name, version, settings, touches_pixels=False)


def screen(name, version="1", settings="{}"):
    """The use of a plugin that touches pixels."""
    return PluginUse(name, version, settings, touches_pixels=True)


def make_plan(axes=None, layout=None, name="cats", skip=lambda cell: False, plugins=(), **settings):
    """A plan over {axis: titles or values}; an axis named like a setting sets it."""
    axes = axes or {}
    base = {"model": "tiny-cats", "prompt": "portrait of beautiful cat", "width": 64, "height": 64} | settings
    built = tuple(Axis(axis, tuple(_value(axis, entry) for entry in values)) for axis, values in axes.items())
    cells = []
    for coordinates in product(*(range(len(axis.values)) for axis in built)):
        swept = {}
        for axis, index in zip(built, coordinates):
            swept |= axis.values[index].settings
        cell = Cell(len(cells) + 1, coordinates, Settings(**base | swept), tuple(plugins)).keyed(HASH)
        if not skip(cell):
            cells.append(cell)
    return Plan(name, built, layout or Layout(), tuple(cells), "name: cats\n")


def _value(axis, entry):
    return AxisValue(str(entry), {axis: entry} if axis in SETTING_NAMES else {})


def picture(cell, size=None):
    """A coloured tile that differs from cell to cell."""
    hue = int(cell.key[:6] or "0", 16)
    width, height = size or (cell.settings.width, cell.settings.height)
    image = Image.new("RGB", (width, height), (hue & 255, hue >> 8 & 255, hue >> 16 & 255))
    image.paste((255, 255, 255), (width // 4, height // 4, width // 2, height // 2))
    return image


def done(cell, size=None, **entries):
    return Outcome(
        cell, "done", png_bytes(picture(cell, size), cell), **{"seconds": 0.25, "worker": "w1"} | entries
    )


def failed(cell, error="out of memory", **entries):
    return Outcome(cell, "failed", error=error, **entries)
