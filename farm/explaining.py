"""The order of a plan, and what shares what in it, as data."""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from farm.cell import Cell, Settings
from farm.costs import first_pass, first_rows, leaves_out, lengths, rows, strand_rows
from farm.ordering import LOADED_AT_ONCE, Order, length_of, weights_of
from farm.plan import Plan
from farm.work import Networks


@dataclass(frozen=True, slots=True)
class Batches:
    """Rows that can share batches, beside the weights that they need.

    Attributes:
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        chunks: of the rows' texts, about.
        approximation: what is computed otherwise; empty if nothing is.
        cells: that have such rows.
        rows: that are computed.
    """

    width: int
    height: int
    chunks: int
    approximation: str
    cells: int
    rows: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbours in the order that need the same weights and are of the same wave.

    Attributes:
        wave: from 1.
        model: the checkpoint's name.
        precision: of its networks.
        is_loaded: whether a stretch before has left the weights there.
        cells: how many there are.
        pictures: different ones that were not wanted before.
        groups: in which pictures share their first pass; each has two pictures or more.
        grouped: pictures in these groups.
        rows: that are computed.
        at_most: whether they may be fewer, see `farm.costs.leaves_out`.
        shared_rows: that need no computing, because an earlier picture has the same.
        longest: cell, in evaluations of the model.
        shortest: cell, in evaluations of the model.
        guessed: cells whose sampler chooses its steps; they count as the longest.
        batches: in the order in which they begin.
    """

    wave: int
    model: str
    precision: str
    is_loaded: bool
    cells: int
    pictures: int
    groups: int
    grouped: int
    rows: int
    at_most: bool
    shared_rows: int
    longest: int
    shortest: int
    guessed: int
    batches: tuple[Batches, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """In what order a job is rendered.

    Attributes:
        order: that was asked for.
        loads: of weights, with one worker that keeps two; each further one loads what it takes part in. A
            worker whose host has room brings back what it had before, and reads each once.
        waves: that there are.
        stretches: one after the other.
    """

    order: Order
    loads: int
    waves: int
    stretches: tuple[Stretch, ...]


def explained(plan: Plan, loaded_at_once: int = LOADED_AT_ONCE) -> Explanation:
    """In what order the cells of a plan are rendered, and what that shares.

    Args:
        plan: in that order.
        loaded_at_once: for how many checkpoints a worker has room.
    """
    known = _Known()
    stretches = [
        _stretch(plan, wave, cells, known, is_loaded)
        for wave, cells, is_loaded in _stretches(plan, loaded_at_once)
    ]
    return Explanation(
        plan.order,
        sum(not stretch.is_loaded for stretch in stretches),
        len({stretch.wave for stretch in stretches}),
        tuple(stretches),
    )


def loads_of(plan: Plan, loaded_at_once: int = LOADED_AT_ONCE) -> Counter[Networks]:
    """How often each networks are loaded, as `explained` has it."""
    stretches = _stretches(plan, loaded_at_once)
    return Counter(Networks(*weights_of(cells[0])) for _, cells, is_loaded in stretches if not is_loaded)


def _stretches(plan: Plan, loaded_at_once: int) -> Iterator[tuple[int, list[Cell], bool]]:
    """The wave of each, its cells, and whether their networks are there already."""
    loaded: list[Hashable] = []  # the one used last at the end
    for (wave, weights), cells in groupby(plan.cells, lambda cell: (plan.wave_of(cell), weights_of(cell))):
        yield wave, list(cells), weights in loaded
        loaded = [*(one for one in loaded if one != weights), weights][-loaded_at_once:]


@dataclass(slots=True)
class _Known:
    """What the stretches before have made."""

    pictures: set[Hashable] = field(default_factory=set)
    first_rows: set[Hashable] = field(default_factory=set)


def _stretch(plan: Plan, wave: int, cells: Sequence[Cell], known: _Known, is_loaded: bool) -> Stretch:
    model, precision = weights_of(cells[0])
    new = {cell.settings: cell for cell in cells if cell.settings not in known.pictures}
    known.pictures.update(new)
    groups = [size for size in Counter(map(first_pass, new)).values() if size > 1]
    all_rows = sum(rows(settings, plan.samplers) for settings in new)
    batches = _batches(plan, list(new.values()), known)
    computed = sum(one.rows for one in batches)
    counts = [length_of(cell, plan.samplers) for cell in cells]
    return Stretch(
        wave + 1,
        model,
        precision,
        is_loaded,
        len(cells),
        len(new),
        len(groups),
        sum(groups),
        computed,
        any(map(leaves_out, new)),
        all_rows - computed,
        max(count for _, count in counts),
        min(count for _, count in counts),
        sum(unknown for unknown, _ in counts),
        batches,
    )


def _batches(plan: Plan, pictures: Sequence[Cell], known: _Known) -> tuple[Batches, ...]:
    found: dict[Hashable, Batches] = {}
    for cell in pictures:
        size = (cell.settings.width, cell.settings.height)
        for kind, count in _counted(plan, cell, known).items():
            one = found.get((size, kind)) or Batches(*size, *kind, 0, 0)
            found[size, kind] = replace(one, cells=one.cells + 1, rows=one.rows + count)
    return tuple(found.values())


def _counted(plan: Plan, cell: Cell, known: _Known) -> Counter[tuple[int, str]]:
    """The rows of a picture that are computed, by chunks and approximation."""
    settings, samplers = cell.settings, plan.samplers
    whole, shallow = _approximations(settings)
    counted: Counter[tuple[int, str]] = Counter()
    of_strands = lengths(settings, samplers), first_rows(settings, samplers)
    for chunks, name, its in zip(*of_strands, strand_rows(cell.evaluations, settings, samplers), strict=True):
        counted[chunks, whole] += its.full - (name in known.first_rows)
        counted[chunks, shallow] += its.shallow
        known.first_rows.add(name)
    return +counted  # without those of which there are none


def _approximations(settings: Settings) -> tuple[str, str]:
    """What is said of a picture's whole rows, and of its shallow ones."""
    merged = f"{settings.token_merging_ratio:.0%} of tokens merged" if settings.token_merging_ratio else ""
    kept = "deep features kept" if settings.deepcache_interval > 1 else ""
    return ", ".join(filter(None, (merged, kept))), ", ".join(filter(None, (merged, "shallow")))
