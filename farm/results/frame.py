"""What is drawn on a sheet, and where: tiles, labels and rules."""

from dataclasses import dataclass, field

from farm.results.lettering import Block
from farm.results.pages import Place


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above the grid: the job, this page's values, the settings all its cells share."""

    title: str
    values: str
    settings: str


@dataclass(frozen=True, slots=True)
class Label:
    """A block of text in its place; `align` as in `lettering.draw`."""

    block: Block
    left: int
    top: int
    width: int = 0
    align: float = 0.0
    colour: str = "black"


@dataclass(slots=True)
class Frame:
    """One picture to be drawn.

    Attributes:
        size: of the picture, in pixels.
        box: of each tile, in pixels.
        slots: the upper left corner of each place's tile.
        labels: all the text.
        rules: thin bars, as (left, top, right, bottom).
    """

    size: tuple[int, int]
    box: tuple[int, int]
    slots: dict[Place, tuple[int, int]] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)
    rules: list[tuple[int, int, int, int]] = field(default_factory=list)
