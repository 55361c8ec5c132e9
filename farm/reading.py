"""What reading a job takes along: the names there are, random seeds, pictures, a place for mistakes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import SystemRandom

from farm.cell import SettingValue
from farm.document import Mistakes
from farm.init_images import InitImages
from farm.prompts.styles import Styles
from farm.sampling import BUILT_IN, Samplers

_DRAWN_BELOW = 2**32  # as A1111 draws them

Names = Mapping[str, tuple[str, ...]]
"""Canonical names, each with the other names it answers to."""

Value = tuple[str, SettingValue]
"""A setting's value, and before it the title that labels show."""


class Seeds:
    """The random seeds of a job: drawn once, read back ever after."""

    def __init__(self, drawn: Iterable[int] = ()) -> None:
        self._all = list(drawn)
        self._used = 0

    @property
    def drawn(self) -> tuple[int, ...]:
        """All of them in order, those of before included."""
        return tuple(self._all)

    def draw(self) -> int:
        """The next seed: one of before, or a new one."""
        if self._used == len(self._all):
            self._all.append(SystemRandom().randrange(_DRAWN_BELOW))
        self._used += 1
        return self._all[self._used - 1]


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a job takes along.

    Attributes:
        models: that there are.
        seeds: where random seeds come from.
        mistakes: takes what is wrong.
        samplers: that there are.
        complete: whether these are all; False where a plugin that may add some could not be had, so that an
            unknown name is no mistake of its own.
        styles: that there are.
        init_images: those that were read, and where others are looked for.
        files: names of what is used beside checkpoints, by its kind: `vae`.
    """

    models: Names
    seeds: Seeds
    mistakes: Mistakes
    samplers: Samplers = BUILT_IN
    complete: bool = True
    styles: Styles = Styles()
    init_images: InitImages = field(default_factory=InitImages)
    files: Mapping[str, Names] = field(default_factory=dict)
