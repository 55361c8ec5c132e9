"""Cells as tasks: each picture once, with what it costs and what it shares."""

from collections.abc import Iterable

from farm.cell import Cell
from farm.cluster.backlog import Task
from farm.costs import evaluations, first_pass, weighed_rows
from farm.ordering import WaveOf, at_once

CellTask = Task[tuple[Cell, ...]]
"""A picture to render; its payload is every cell that it serves, and the first is the one rendered."""


def tasks_of(cells: Iterable[Cell], wave_of: WaveOf = at_once) -> list[CellTask]:
    """One task for each different picture, in render order.

    Cells of equal key and plugins want the same picture and the same scores.

    Args:
        cells: in render order.
        wave_of: the wave of each; a picture belongs to that of the first cell which wants it.

    Raises:
        ValueError: a cell has no key yet.
    """
    twins: dict[object, list[Cell]] = {}
    for cell in cells:
        if not cell.key:
            raise ValueError(f"cell {cell.number} has no key; hash its weights first")
        twins.setdefault(task_key(cell), []).append(cell)
    return [_task(tuple(same), wave_of) for same in twins.values()]


def task_key(cell: Cell) -> tuple[object, ...]:
    """Names the task that renders this cell."""
    return cell.key, cell.plugins


def cost(cell: Cell) -> float:
    """Rows of the network that the cell takes, times pixels: what its time is roughly proportional to."""
    settings = cell.settings
    counted = weighed_rows(cell.evaluations or evaluations(settings), settings)
    return max(1.0, counted) * settings.width * settings.height


def _task(cells: tuple[Cell, ...], wave_of: WaveOf) -> CellTask:
    settings = cells[0].settings
    return Task(
        key=task_key(cells[0]),
        payload=cells,
        weights=f"{cells[0].model_hash or settings.model} {settings.precision}",
        group=first_pass(settings),
        cost=cost(cells[0]),
        wave=wave_of(cells[0]),
    )
