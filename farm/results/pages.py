"""Which cell stands where on which sheet."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from farm.axes import Axis
from farm.cell import DEFAULTS, SETTING_NAMES, Cell, SettingValue
from farm.plan import Plan

Place = tuple[int, int, int, int]
"""Super row, row, super column, column: the index of each one's value."""

NO_AXIS = ""


@dataclass(frozen=True, slots=True)
class Side:
    """An axis as it runs along a side of the sheet; without an axis, one place without a label.

    Attributes:
        name: of the axis, or empty.
        titles: of its values.
    """

    name: str
    titles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sides:
    """The four axes that a sheet can show at once, from the outermost to the innermost."""

    super_rows: Side
    rows: Side
    super_columns: Side
    columns: Side

    @property
    def others(self) -> tuple[Side, ...]:
        """All but the columns."""
        return self.super_rows, self.rows, self.super_columns


@dataclass(frozen=True, slots=True)
class Page:
    """One sheet's cells.

    Attributes:
        values: for each page axis, its name and the title of its value here.
        cells: by their place; a place without a cell was skipped.
    """

    values: tuple[tuple[str, str], ...]
    cells: dict[Place, Cell]


def sides(plan: Plan) -> Sides:
    """The axes along the sheet's sides, as the plan's layout says."""
    by_name = {axis.name: axis for axis in plan.axes}
    layout = plan.layout
    names = (layout.super_rows, layout.rows, layout.super_columns, layout.columns)
    return Sides(*(_side(by_name.get(name)) for name in names))


def _side(axis: Axis | None) -> Side:
    return Side(axis.name, tuple(value.title for value in axis.values)) if axis else Side(NO_AXIS, ("",))


def pages(plan: Plan) -> Iterator[Page]:
    """The sheets, one for each combination of the values of the page axes that has a cell.

    An axis that the layout gives no place is a page axis too, so that no cell is lost.
    """
    placed = _positions(plan, "super_rows", "rows", "super_columns", "columns")
    paging = [index for index in range(len(plan.axes)) if index not in placed]
    grouped: dict[tuple[int, ...], dict[Place, Cell]] = {}
    for cell in plan.cells:
        place = tuple(cell.coordinates[index] if index is not None else 0 for index in placed)
        page = tuple(cell.coordinates[index] for index in paging)
        grouped.setdefault(page, {})[(place[0], place[1], place[2], place[3])] = cell
    axes = [plan.axes[index] for index in paging]
    for page in sorted(grouped):
        titles = tuple((axis.name, axis.values[value].title) for axis, value in zip(axes, page))
        yield Page(titles, grouped[page])


def _positions(plan: Plan, *fields: str) -> list[int | None]:
    order = {axis.name: index for index, axis in enumerate(plan.axes)}
    return [order.get(getattr(plan.layout, field)) for field in fields]


def is_usual(name: str, value: SettingValue) -> bool:
    """Whether a setting need not be told where space is dear."""
    return name not in _ALWAYS_TOLD and name in DEFAULTS and value == DEFAULTS[name]


_ALWAYS_TOLD = frozenset({"model", "prompt", "sampler", "steps", "cfg_scale", "seed", "width", "height"})


def shared_settings(cells: Collection[Cell]) -> dict[str, SettingValue]:
    """The settings that all these cells have in common."""
    shared: dict[str, SettingValue] = {}
    for name in SETTING_NAMES:
        values = {getattr(cell.settings, name) for cell in cells}
        if len(values) == 1:
            shared[name] = values.pop()
    return shared
