from pathlib import Path

import pytest

from farm.cell import Cell, PluginUse, Settings
from farm.chain import Chain
from farm.plugins import find_plugins

SHIPPED = Path(__file__).parents[2] / "plugins"


@pytest.fixture
def apply():
    """Put a picture through one shipped plugin, with these settings, as a worker does."""

    def _apply(name, image, **settings):
        info = find_plugins([SHIPPED])[name]
        complete = info.settings_model.model_validate(settings).model_dump_json()
        uses = (PluginUse(name, info.version, complete, info.touches_pixels),)
        return Chain(uses, [SHIPPED]).finish(image, Cell(1, (), Settings("m", "p"), uses))

    return _apply
