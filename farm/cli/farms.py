"""Which farm renders. The one place that imports torch or Ray, and only when something is rendered."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.cluster.crew import COMPILING, USUAL
from farm.errors import FarmError
from farm.merges import Checkpoint

if TYPE_CHECKING:
    from farm.cluster.coordinator import Farm


def open_farm(
    checkpoints: Mapping[str, Checkpoint],
    plugin_folders: Sequence[Path],
    inline: bool,
    address: str | None,
    workers: int | None,
    options: Mapping[str, Any],
) -> "Farm":
    """The farm that the options ask for, not yet started; the last ones are those of its renderers.

    Raises:
        FarmError: Ray is wanted, and is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: nothing is fetched
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch is: its profiler talks to its builders
    if inline:
        if options.get("profiled"):
            import_module("farm.render.profile").begin_here()
        renderer = partial(import_module("farm.render.renderer").Renderer, **options)
        inline_farm = import_module("farm.cluster.inline").InlineFarm
        farm: Farm = inline_farm(checkpoints, plugin_folders, renderer_factory=renderer)
        return farm
    if find_spec("ray") is None:
        raise FarmError("Ray is not installed here; --inline renders without it")
    ray_farm = import_module("farm.cluster.ray_farm")
    patience = COMPILING if options.get("compiled") else USUAL
    farm = ray_farm.RayFarm(checkpoints, plugin_folders, address, workers, patience, options=options)
    return farm
