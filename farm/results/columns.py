"""What plugins found out about a picture, as far as the job still asks for it."""

from farm.cell import Cell, PluginUse, Scalar
from farm.results.journal import Record


def columns_of(cell: Cell, record: Record | None) -> dict[str, Scalar]:
    """The columns to show for a cell: none of a plugin that was removed, none of another version or settings.

    A plugin that touches pixels is part of the key, so its columns are about this very picture.
    """
    if record is None or not record.columns:
        return {}
    missing = missing_scores(cell, record)
    names = [use.name for use in cell.plugins if use not in missing]
    return {
        column: value
        for column, value in record.columns.items()
        if any(column == name or column.startswith(f"{name}.") for name in names)
    }


def missing_scores(cell: Cell, record: Record) -> tuple[PluginUse, ...]:
    """The scores that the cell asks for and the record does not have."""
    return tuple(use for use in cell.plugins if not use.touches_pixels and use.identity not in record.scores)
