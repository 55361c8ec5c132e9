"""Which cell stands where on which sheet."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from farm.cell import DEFAULTS, SETTING_NAMES, Cell, SettingValue
from farm.plan import Plan
from farm.settings import PROMPTS

Place = tuple[int, int, int, int]
"""Super row, row, super column, column: the index of each one's value."""

NO_AXIS = ""

EMPTY = "(empty)"
"""What stands for an empty text."""


@dataclass(frozen=True, slots=True)
class Side:
    """An axis as it runs along a side of the sheet; without an axis, one place without a label.

    Attributes:
        name: of the axis, or empty.
        titles: of its values.
    """

    name: str
    titles: tuple[str, ...]

    def title(self, value: int) -> str:
        """What stands at a value."""
        return self.titles[value].strip() or EMPTY


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


def sides(plan: Plan, titles: Mapping[str, tuple[str, ...]]) -> Sides:
    """The axes along the sheet's sides, as the plan's layout says, with these titles of their values."""
    layout = plan.layout
    names = (layout.super_rows, layout.rows, layout.super_columns, layout.columns)
    return Sides(*(Side(name, titles[name]) if name in titles else Side(NO_AXIS, ("",)) for name in names))


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


def heading(plan: Plan, cells: Collection[Cell], prompts: Mapping[str, str]) -> dict[str, SettingValue]:
    """What stands above these cells: the settings they share, as the job says them, and these prompts.

    Settings that are as usual are left out.
    """
    told = {**shared_settings(cells), **plan.asked}
    from_pictures = any(cell.settings.init_image for cell in cells)
    names = dict.fromkeys(("model", *PROMPTS, *told))
    values = {name: prompts.get(name) if name in PROMPTS else told.get(name) for name in names}
    return {
        name: plan.shown(name, value)
        for name, value in values.items()
        if value is not None and (not _is_usual(name, value) or (name == STRENGTH and from_pictures))
    }


def _is_usual(name: str, value: SettingValue) -> bool:
    """Whether a setting need not be told where space is dear."""
    return name not in _ALWAYS_TOLD and name in DEFAULTS and value == DEFAULTS[name]


STRENGTH = "denoising_strength"

_ALWAYS_TOLD = frozenset({"model", "prompt", "sampler", "steps", "cfg_scale", "seed", "width", "height"})


def shared_settings(cells: Collection[Cell]) -> dict[str, SettingValue]:
    """The settings that all these cells have in common."""
    shared: dict[str, SettingValue] = {}
    for name in SETTING_NAMES:
        values = {getattr(cell.settings, name) for cell in cells}
        if len(values) == 1:
            shared[name] = values.pop()
    return shared
