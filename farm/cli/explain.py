"""`farm plan --explain` in words."""

from collections.abc import Iterator

from farm.cli.words import counted, listed
from farm.explaining import Batches, Explanation, Stretch
from farm.ordering import STRIDES, TAIL, Order

MOST_STRETCHES = 10
"""Stretches that are told one by one; of more, the first are."""

MOST_BATCHES = 8
"""Kinds of batches of a stretch that are told one by one, and items of other lists."""

COARSE = f"""\
Every {STRIDES[0]}th value of each axis and the last one are the first wave, every {STRIDES[1]}nd the second,
all others the third. In each of them:"""

RULES = f"""\
Cells that need the same networks (checkpoint and precision) stand together; in these those of a size; then
those of an approximation, with prompts of a length (in chunks of 75 tokens, taking each word for one); then
those that start from the same picture, and those that share their first pass. The longest come first. The
last {TAIL} or so before any of this changes go by their own length alone: what is short at the end keeps the
batches full."""


def explanation(told: Explanation) -> Iterator[str]:
    """Lines about the order of a job."""
    yield f"order: {told.order}"
    if told.order is Order.COARSE:
        yield COARSE
    yield RULES
    different = len({(stretch.model, stretch.precision) for stretch in told.stretches})
    yield f"different networks: {different}; loads, with one worker: {told.loads}"
    for number, stretch in enumerate(told.stretches[:MOST_STRETCHES], 1):
        yield ""
        yield from _stretch(number, stretch, told.waves > 1)
    if rest := told.stretches[MOST_STRETCHES:]:
        cells = sum(stretch.cells for stretch in rest)
        yield f"\n… {len(rest)} more like these, with {counted(cells, 'cell')}; --json has them all"


def _stretch(number: int, stretch: Stretch, in_waves: bool) -> Iterator[str]:
    wave = f"wave {stretch.wave}, " if in_waves else ""
    there = " (still loaded)" if stretch.is_loaded else ""
    precision = "" if stretch.precision == "auto" else f" in {stretch.precision}"
    twins = "" if stretch.pictures == stretch.cells else f", {counted(stretch.pictures, 'new picture')}"
    yield f"{number}. {wave}{stretch.model}{precision}{there}: {counted(stretch.cells, 'cell')}{twins}"
    sizes = list(dict.fromkeys(_size(one) for one in stretch.batches))
    chunks = [str(chunks) for chunks in sorted({one.chunks for one in stretch.batches})]
    if stretch.batches:
        yield f"   sizes: {listed(sizes, MOST_BATCHES)}; chunks: {listed(chunks, MOST_BATCHES)}"
    yield f"   evaluations of a cell: {_evaluations(stretch)}"
    yield f"   groups with the same first pass: {stretch.groups}, of {counted(stretch.grouped, 'picture')}"
    rows = f"{'at most ' * stretch.at_most}{stretch.rows}"
    yield f"   rows: {rows}, after {stretch.shared_rows} that are shared; batches can have together"
    for one in stretch.batches[:MOST_BATCHES]:
        how = f", {one.approximation}" if one.approximation else ""
        kind = f"{_size(one)}, {counted(one.chunks, 'chunk')}{how}"
        yield f"     {kind}: {counted(one.rows, 'row')} of {counted(one.cells, 'picture')}"
    if rest := stretch.batches[MOST_BATCHES:]:
        yield f"     … {len(rest)} more kinds: {counted(sum(one.rows for one in rest), 'row')}"


def _evaluations(stretch: Stretch) -> str:
    same = stretch.longest == stretch.shortest
    text = f"{stretch.longest}" if same else f"{stretch.longest} to {stretch.shortest}"
    if stretch.guessed:
        text += f"; {counted(stretch.guessed, 'cell')} first, whose sampler chooses its steps"
    return text


def _size(batches: Batches) -> str:
    return f"{batches.width}x{batches.height}"
