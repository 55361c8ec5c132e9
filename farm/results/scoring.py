"""Scores for pictures that are there already: adding a score to a job renders nothing."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from farm.cell import Cell, PluginUse
from farm.chain import Chain
from farm.errors import FarmError
from farm.plan import Plan
from farm.results.infotext import open_picture
from farm.results.store import Store


def score_stored(plan: Plan, store: Store, plugin_folders: Sequence[Path]) -> Iterator[tuple[Cell, str]]:
    """Computes the scores that a job asks for and its stored pictures lack, in this process.

    Args:
        plan: the whole plan, with final keys.
        store: of its results, open for writing.
        plugin_folders: as in `Workspace.plugin_folders`.

    Yields:
        Each cell that lacked a score, and why it still does; the reason is empty if it no longer does.
    """
    done = store.done()

    @cache
    def chain_of(uses: tuple[PluginUse, ...]) -> Chain:
        return Chain(uses, plugin_folders)

    for cell in {cell.key: cell for cell in plan.cells if cell.key in done}.values():
        record = done[cell.key]
        missing = tuple(
            use for use in cell.plugins if not use.touches_pixels and use.identity not in record.scores
        )
        if not missing:
            continue
        try:
            image = open_picture(store.folder / record.file).convert("RGB")
            columns = chain_of(missing).finish(image, cell).columns
        except (FarmError, OSError) as error:
            yield cell, str(error)
        else:
            store.add_scores(cell, columns)
            yield cell, ""
