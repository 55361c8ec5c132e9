"""One way of rendering the sheet, as it was measured."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Pictures = dict[int, np.ndarray]
"""By the cell's number: uint8 `(height, width, 3)`."""


@dataclass(frozen=True, slots=True)
class Side:
    """What the whole sheet takes on one side.

    Attributes:
        seconds: for all of it; what starting and compiling take is not in it.
        images: that were made in them.
        evaluations: of the model; with guidance each has two rows.
        rows: that went through the UNet.
        pictures: of the cells that were rendered.
        facts: what else there is to say.
        processor: seconds of all threads of this process on processors, which other programs change less;
            0 where other processes did the work.
        asked: evaluations of each cell by its number, where that is known.
    """

    seconds: float
    images: int
    evaluations: int
    rows: int
    pictures: Pictures = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    processor: float = 0.0
    asked: dict[int, int] = field(default_factory=dict)

    @property
    def images_a_second(self) -> float:
        """What sides are compared by."""
        return self.images / self.seconds


def largest_difference(one: Pictures, other: Pictures, numbers: Iterable[int]) -> int | None:
    """Of a pixel's channel, of 255, among the cells that both have; None if there are none."""
    both = [number for number in numbers if number in one and number in other]
    apart = (np.abs(one[number].astype(int) - other[number].astype(int)).max() for number in both)
    return max(map(int, apart), default=None)
