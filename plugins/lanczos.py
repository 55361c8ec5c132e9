"""Enlarge the picture with Pillow's Lanczos filter, by a factor or to a size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from farm.hooks import Cell, PluginSettings, hookimpl

if TYPE_CHECKING:
    import PIL.Image

__version__ = "1"


def _default_scale(given: dict[str, Any]) -> float | None:
    return None if given.get("width") or given.get("height") else 2.0


class LanczosSettings(PluginSettings):
    """Either a factor or a size; one side alone keeps the proportions. Nothing given means twice the size."""

    width: int | None = Field(None, ge=1, le=16384)
    height: int | None = Field(None, ge=1, le=16384)
    scale: float | None = Field(default_factory=_default_scale, ge=1, le=8)

    @model_validator(mode="after")
    def _one_way_only(self) -> LanczosSettings:
        if (self.scale is None) == (self.width is None and self.height is None):
            raise ValueError("give either scale, or width and height (or one of them)")
        return self

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """The new size of a picture of this width and height, in pixels."""
        if self.scale is not None:
            return round(width * self.scale), round(height * self.scale)
        new_width = self.width or max(1, round(width * (self.height or 0) / height))
        new_height = self.height or max(1, round(height * (self.width or 0) / width))
        return new_width, new_height


@hookimpl
def settings_model() -> type[PluginSettings]:
    """Scale, or width and height."""
    return LanczosSettings


@hookimpl
def transform_image(image: PIL.Image.Image, cell: Cell, settings: LanczosSettings) -> PIL.Image.Image:
    """The enlarged picture."""
    import PIL.Image

    return image.resize(settings.size_of(*image.size), PIL.Image.Resampling.LANCZOS)
