"""What the small files of a diffusers folder say. Without torch."""

import json
from pathlib import Path
from typing import Any

from farm.errors import FarmError, described

INDEX = "model_index.json"
"""The file that makes a folder a diffusers pipeline."""

SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
UNET_CONFIG = "unet/config.json"


def pipeline_of(folder: Path) -> str:
    """The class of pipeline that a diffusers folder says it is.

    Raises:
        FarmError: if its `model_index.json` cannot be read or does not say.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FarmError(f"{INDEX} cannot be read: {described(error)}") from error
    pipeline = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(pipeline, str) or not pipeline:
        raise FarmError(f"{INDEX} is not that of a diffusers folder: it names no _class_name")
    return pipeline


def is_vae(folder: Path) -> bool:
    """Whether a folder is a VAE of its own."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("_class_name") == "AutoencoderKL"


def config_in(folder: Path, name: str) -> dict[str, Any]:
    """One of the JSON files of a diffusers folder.

    Raises:
        FarmError: if it cannot be read.
    """
    try:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FarmError(f"{name} cannot be read: {described(error)}") from error
    if not isinstance(config, dict):
        raise FarmError(f"{name} is not a mapping")
    return config
