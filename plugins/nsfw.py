"""Find nudity with NudeNet (https://github.com/notAI-tech/NudeNet), whose wheel carries its model.

An extra, `pip install 'farm-sd[nsfw]'`: the wheel's metadata says MIT, its licence file AGPL-3.0.
"""

from __future__ import annotations

import threading
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from farm.hooks import Cell, PluginSettings, Unavailable, Verdict, hookimpl

if TYPE_CHECKING:
    import PIL.Image

__version__ = "1"

if not (find_spec("nudenet") and find_spec("onnxruntime")):
    raise Unavailable("needs the extra: pip install 'farm-sd[nsfw]'")

Label = Literal[
    "ANUS_COVERED",
    "ANUS_EXPOSED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "BELLY_COVERED",
    "BELLY_EXPOSED",
    "BUTTOCKS_COVERED",
    "BUTTOCKS_EXPOSED",
    "FACE_FEMALE",
    "FACE_MALE",
    "FEET_COVERED",
    "FEET_EXPOSED",
    "FEMALE_BREAST_COVERED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_COVERED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
]

EXPLICIT: tuple[Label, ...] = (
    "ANUS_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
)


class NsfwSettings(PluginSettings):
    """What counts, how sure NudeNet has to be, and what happens then."""

    action: Literal["blackout", "mark"] = "blackout"
    threshold: float = Field(0.5, ge=0.25, le=1)  # NudeNet itself drops what it is less sure of
    classes: tuple[Label, ...] = EXPLICIT


@hookimpl
def settings_model() -> type[PluginSettings]:
    """Action, threshold and classes."""
    return NsfwSettings


@hookimpl
def screen_image(image: PIL.Image.Image, cell: Cell, settings: NsfwSettings) -> Verdict:
    """Flag the picture if NudeNet sees one of the classes; the reason lists them, surest first."""
    import numpy as np

    found = _detector().detect(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))  # BGR, as cv2 reads files
    reasons = [
        f"{part['class']} {part['score']:.2f}"
        for part in sorted(found, key=lambda part: -part["score"])
        if part["class"] in settings.classes and part["score"] >= settings.threshold
    ]
    return Verdict(flagged=bool(reasons), reason=", ".join(reasons), action=settings.action)


_loading = threading.Lock()


def _detector() -> Any:
    with _loading:  # hooks run in several threads; the model is read once
        return _load_detector()


@cache
def _load_detector() -> Any:
    from nudenet import NudeDetector

    return NudeDetector()
