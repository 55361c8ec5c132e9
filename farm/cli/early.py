"""What can be looked at while a job is rendered in coarse order: sheets of the waves that are through."""

from collections import Counter

from farm.cell import Cell
from farm.plan import Plan
from farm.results.gallery import write_gallery
from farm.results.sheet import write_sheets
from farm.results.store import Store


class Waves:
    """Counts what is left of each wave.

    Args:
        left: the plan of the cells that are to be rendered.
    """

    def __init__(self, left: Plan) -> None:
        self._wave_of = left.wave_of
        self._left = Counter(map(left.wave_of, left.cells))

    def end_with(self, cell: Cell) -> bool:
        """One more cell is through; whether a wave is with it, the ones before are, and there are others."""
        first, wave = min(self._left), self._wave_of(cell)
        self._left[wave] -= 1
        if not self._left[wave]:
            del self._left[wave]
        return bool(self._left) and min(self._left) > first


def write_early(plan: Plan, store: Store) -> str:
    """Writes index, sheets and page with what is there, and says so in a line.

    Args:
        plan: the whole plan, with final keys.
        store: of its results.

    Raises:
        FarmError: they cannot be written.
    """
    store.write_index()
    records = store.records()
    sheets = write_sheets(plan, records, store.folder)
    write_gallery(plan, records, store.folder)
    there = sum(cell.key in records for cell in plan.cells)
    return f"{plan.name}: {there} of {len(plan.cells)} cells are there, spread over the axes: {sheets[0]}"
