"""What a plugin is made of: the hooks it may implement and the names it may use.

A plugin imports from here and from nowhere else in the farm; docs/plugins.md shows how. Hooks receive
data, never the engine or the plugin manager.
"""

# Specifications have a signature and a docstring, and nothing that could return.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import pluggy
from pydantic import BaseModel, ConfigDict

from farm.cell import Cell, Settings
from farm.errors import FarmError
from farm.questions import Denoise, Draw, NoiseSource, Read
from farm.sampling import Sampler, Schedule

if TYPE_CHECKING:  # jobs are planned without Pillow
    import PIL.Image

__all__ = [
    "PROJECT",
    "Cell",
    "Denoise",
    "Draw",
    "NoiseSource",
    "PluginSettings",
    "Read",
    "Sampler",
    "Schedule",
    "Settings",
    "Unavailable",
    "Verdict",
    "hookimpl",
    "hookspec",
]

PROJECT = "farm"
"""The name of the pluggy project and of the entry point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Action = Literal["blackout", "mark"]


class PluginSettings(BaseModel):
    """Base of a plugin's own settings: unknown names are errors, and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Unavailable(FarmError):
    """The plugin lacks something on this machine; the message says what, and how to get it.

    Raise it at the top of the plugin's file where that is cheap to see, so that the job's check tells.
    """


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a screening plugin thinks of a picture.

    Attributes:
        flagged: whether the picture is objected to.
        reason: what was found, in a few words; needed if flagged.
        action: what happens to a flagged picture: `blackout` turns it black, `mark` keeps it.

    Raises:
        ValueError: flagged without a reason, or an action that does not exist.
    """

    flagged: bool
    reason: str = ""
    action: Action = "blackout"

    def __post_init__(self) -> None:
        if self.flagged and not self.reason:
            raise ValueError("a verdict that flags a picture needs a reason")
        if self.action not in get_args(Action):
            raise ValueError(f"action {self.action!r} is none of {', '.join(get_args(Action))}")


@hookspec(firstresult=True)
def settings_model() -> type[PluginSettings]:
    """Give the model of the plugin's own settings; without this hook the plugin takes none."""


@hookspec(firstresult=True)
def transform_image(image: PIL.Image.Image, cell: Cell, settings: PluginSettings) -> PIL.Image.Image:
    """Give the picture that takes the place of this one, in mode RGB and of any size."""


@hookspec(firstresult=True)
def screen_image(image: PIL.Image.Image, cell: Cell, settings: PluginSettings) -> Verdict:
    """Judge the picture as it is after all transforms."""


@hookspec(firstresult=True)
def score_image(image: PIL.Image.Image, cell: Cell, settings: PluginSettings) -> dict[str, float]:
    """Give finite numbers about the final picture, each by the name of its column in the index."""


@hookspec(firstresult=True)
def samplers() -> Sequence[Sampler]:
    """Give samplers that jobs with this plugin can name, each with an algorithm of the plugin's own."""


@hookspec(firstresult=True)
def schedules() -> Sequence[Schedule]:
    """Give noise schedules that jobs with this plugin can name, each with a function of the plugin's own."""
