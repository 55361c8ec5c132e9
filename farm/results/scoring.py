"""Scores for pictures that are there already: adding a score to a job renders nothing."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from farm.cell import Cell, PluginUse
from farm.chain import Chain
from farm.errors import FarmError
from farm.plan import Plan
from farm.results.columns import missing_scores
from farm.results.infotext import open_picture
from farm.results.store import Store


def unscored(plan: Plan, store: Store) -> list[Cell]:
    """The cells whose stored pictures lack a score that the job asks for; one cell for each picture."""
    done = store.done()
    cells = {cell.key: cell for cell in plan.cells}
    return [cell for key, cell in cells.items() if key in done and missing_scores(cell, done[key])]


def score_stored(
    cells: Sequence[Cell], store: Store, plugin_folders: Sequence[Path]
) -> Iterator[tuple[Cell, str]]:
    """Computes the missing scores of stored pictures, in this process.

    Args:
        cells: those that are `unscored`.
        store: of their results, open for writing.
        plugin_folders: as in `Workspace.plugin_folders`.

    Yields:
        Each cell, and why it still lacks a score; the reason is empty if it no longer does.

    Raises:
        FarmError: a score cannot be stored: the disk is full, or gone.
    """
    done = store.done()

    @cache
    def chain_of(uses: tuple[PluginUse, ...]) -> Chain:
        return Chain(uses, plugin_folders)

    for cell in cells:
        record = done[cell.key]
        chain = chain_of(missing_scores(cell, record))
        try:
            with open_picture(store.folder / record.file) as picture:
                columns = chain.finish(picture.convert("RGB"), cell).columns
        except (FarmError, OSError, SyntaxError, ValueError) as error:  # what Pillow says of damaged files
            yield cell, str(error)
        else:
            store.add_scores(cell, columns)
            yield cell, ""
