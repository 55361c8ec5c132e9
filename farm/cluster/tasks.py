"""Cells as tasks: each picture once, with what it costs and what it shares."""

from collections.abc import Iterable

from farm.cell import Cell
from farm.cluster.backlog import Task
from farm.costs import evaluations, first_pass, rows_of

CellTask = Task[tuple[Cell, ...]]
"""A picture to render; its payload is every cell that it serves, and the first is the one rendered."""


def tasks_of(cells: Iterable[Cell]) -> list[CellTask]:
    """One task for each different picture, in render order.

    Cells of equal key and plugins want the same picture and the same scores.

    Raises:
        ValueError: a cell has no key yet.
    """
    twins: dict[object, list[Cell]] = {}
    for cell in cells:
        if not cell.key:
            raise ValueError(f"cell {cell.number} has no key; hash its weights first")
        twins.setdefault(task_key(cell), []).append(cell)
    return [_task(tuple(same)) for same in twins.values()]


def task_key(cell: Cell) -> tuple[object, ...]:
    """Names the task that renders this cell."""
    return cell.key, cell.plugins


PER_BRANCH = 0.1
"""Of a full row's cost, that of a shallow row for each branch: as in Stable Diffusion's UNet, at 512²."""


def cost(cell: Cell) -> float:
    """Rows of the network that the cell takes, times pixels: what its time is roughly proportional to."""
    settings = cell.settings
    counted = rows_of(cell.evaluations or evaluations(settings), settings)
    shallow = min(1.0, PER_BRANCH * (1 + settings.deepcache_branch)) * counted.shallow
    return (counted.full + shallow) * settings.width * settings.height


def _task(cells: tuple[Cell, ...]) -> CellTask:
    settings = cells[0].settings
    return Task(
        key=task_key(cells[0]),
        payload=cells,
        weights=cells[0].model_hash or settings.model,
        group=first_pass(settings),
        cost=cost(cells[0]),
    )
