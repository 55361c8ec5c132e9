"""In which order cells are rendered: what shares goes together, and batches stay full to the end."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import chain
from typing import NamedTuple

from farm.cell import Cell
from farm.costs import first_pass, lengths, row_kind
from farm.sampling import BUILT_IN, Samplers
from farm.starting import image_encoding

LOADED_AT_ONCE = 2
"""Checkpoints that a worker keeps loaded: the one in use, and its neighbour where a sweep changes over."""

STRIDES = (4, 2, 1)
"""A coarse order takes every fourth value of each axis first, then every second, then all."""

TAIL = 256
"""Cells at the end of a run that go by their length alone, whatever they share."""


class Order(StrEnum):
    """What a job is rendered for: to be done soon, or to show something soon."""

    FAST = "fast"
    COARSE = "coarse"


WaveOf = Callable[[Cell], int]
"""The wave that a cell belongs to, from 0; one begins when nothing of those before is left to hand out."""


def at_once(cell: Cell) -> int:
    """All cells are of one wave."""
    return 0


def coarse_wave(coordinates: Sequence[int], sizes: Sequence[int]) -> int:
    """The wave of a coarse order that a cell belongs to: the latest of its coordinates' waves.

    A coordinate belongs to the first stride that divides it; the last value of an axis to the first wave.

    Args:
        coordinates: of the cell, on each axis.
        sizes: how many values each axis has.
    """
    places = zip(coordinates, sizes, strict=True)
    return max((_wave_of_index(index, size) for index, size in places), default=0)


def _wave_of_index(index: int, size: int) -> int:
    if index == size - 1:
        return 0
    return next(wave for wave, stride in enumerate(STRIDES) if index % stride == 0)


class _Run(NamedTuple):
    """What cells have in common whose rows can share batches."""

    wave: int
    weights: tuple[str, str]
    size: tuple[int, int]
    kind: tuple[Hashable, ...]
    lengths: tuple[int, ...]


_Group = list[Cell]
"""Cells of a wave that share a first pass."""


def in_render_order(
    cells: Iterable[Cell], samplers: Samplers = BUILT_IN, wave_of: WaveOf = at_once
) -> list[Cell]:
    """Sorts cells; the order that they come in does not matter.

    Wave by wave, weights stand together, then sizes, then approximations and lengths of prompts, since other
    rows have batches of their own, then groups that share a first pass; the groups with the longest cells
    come first, and in each the longest cells. The last groups of such a run are taken as one, so that what
    is left when a batch can no longer be filled is short. Every second wave takes weights and sizes
    backwards, from those that are there. What is equal stays in the order of the axes.

    Args:
        cells: of one job.
        samplers: that it can name.
        wave_of: the wave that each cell belongs to.
    """
    groups: dict[Hashable, _Group] = {}
    for cell in sorted(cells, key=lambda cell: cell.number):
        groups.setdefault((wave_of(cell), first_pass(cell.settings)), []).append(cell)
    runs: dict[_Run, list[_Group]] = {}
    for group in groups.values():
        runs.setdefault(_run(group, samplers, wave_of), []).append(group)
    return [cell for run in _sorted(runs) for cell in _longest_first(runs[run], samplers)]


def weights_of(cell: Cell) -> tuple[str, str]:
    """The networks that a cell needs loaded."""
    return cell.settings.model, cell.settings.precision


def length_of(cell: Cell, samplers: Samplers) -> tuple[bool, int]:
    """Sorts cells by their evaluations; where a sampler chooses its steps, nobody knows: they may be many."""
    return samplers[cell.settings.sampler].chooses_steps, cell.evaluations


def _run(group: _Group, samplers: Samplers, wave_of: WaveOf) -> _Run:
    first = group[0]
    found = {length for cell in group for length in lengths(cell.settings, samplers)}
    size = (first.settings.width, first.settings.height)
    kind = row_kind(first.settings)
    return _Run(wave_of(first), weights_of(first), size, kind, tuple(sorted(found)))


def _sorted(runs: Iterable[_Run]) -> list[_Run]:
    """By wave, then by weights, size and lengths as they come first on the axes."""
    runs = list(runs)
    weights = {one: rank for rank, one in enumerate(dict.fromkeys(run.weights for run in runs))}
    sizes = {one: rank for rank, one in enumerate(dict.fromkeys(run.size for run in runs))}
    waves = {one: rank for rank, one in enumerate(sorted({run.wave for run in runs}))}

    def place(run: _Run) -> tuple[int, int, int]:
        direction = -1 if waves[run.wave] % 2 else 1
        return run.wave, direction * weights[run.weights], direction * sizes[run.size]

    return sorted(runs, key=place)


def _longest_first(groups: Iterable[_Group], samplers: Samplers) -> Iterator[Cell]:
    """Group by group while there are many cells, then all that is left as one group.

    Groups that start from the same picture stand together, too: it is encoded, and soon no longer needed.
    """

    def shortness(cell: Cell) -> tuple[bool, int]:
        unknown, evaluations = length_of(cell, samplers)
        return not unknown, -evaluations

    ordered = sorted(
        (sorted(group, key=shortness) for group in groups), key=lambda group: shortness(group[0])
    )
    together: dict[Hashable, list[_Group]] = {}
    for number, group in enumerate(ordered):
        together.setdefault(image_encoding(group[0].settings) or number, []).append(group)
    waiting = list(chain.from_iterable(together.values()))
    left = sum(map(len, waiting))
    for number, group in enumerate(waiting):
        if left <= TAIL:
            yield from sorted((cell for group in waiting[number:] for cell in group), key=shortness)
            return
        yield from group
        left -= len(group)
