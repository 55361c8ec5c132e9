"""What can be looked at while a job is rendered in coarse order: sheets of the waves that are through."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from farm.cell import Cell
from farm.errors import described
from farm.plan import Plan
from farm.results.gallery import write_gallery
from farm.results.journal import Record
from farm.results.sheet import each_sheet
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


class Early:
    """Draws the sheets of the waves that are through, in a thread: the workers are not to wait for it.

    When the block ends, the sheet that is being drawn is finished, and no other is begun.

    Args:
        plan: the whole plan, with final keys.
        left: of the cells that are to be rendered.
        store: of the results.
    """

    def __init__(self, plan: Plan, left: Plan, store: Store) -> None:
        self._plan = plan
        self._store = store
        self._waves = Waves(left)
        self._thread = ThreadPoolExecutor(1, "sheets")
        self._drawing: Future[str] | None = None
        self._is_due = self._ends = False

    def __enter__(self) -> "Early":
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self._thread.shutdown()

    def add(self, cell: Cell) -> str:
        """One more cell is through; returns a line for people if sheets are drawn by now, else nothing."""
        self._is_due |= self._waves.end_with(cell)
        if self._drawing is not None and not self._drawing.done():
            return ""
        said, self._drawing = self._drawing.result() if self._drawing else "", None
        if self._is_due:
            self._is_due = False
            self._drawing = self._thread.submit(self._drawn, self._store.records())
        return said

    def _drawn(self, records: Mapping[str, Record]) -> str:
        """What is there, in a line. Sheets that cannot be drawn now are no reason to end the run."""
        name, cells, sheets = self._plan.name, self._plan.cells, list[Path]()
        try:
            for sheet in each_sheet(self._plan, records, self._store.folder):
                sheets.append(sheet)
                if self._ends:
                    return ""
            write_gallery(self._plan, records, self._store.folder)
        except Exception as error:  # want of memory, too; at the end they are drawn again
            return f"{name}: no early sheets: {described(error)}"
        there = sum(cell.key in records for cell in cells)
        return f"{name}: {there} of {len(cells)} cells are there, spread over the axes: {sheets[0]}"
