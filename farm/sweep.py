"""The `sweep:` of a job: what people write there, as axes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from farm.axes import MAX_VALUES, Axis, AxisValue
from farm.cell import SettingValue
from farm.document import Items, Table, Text, Written
from farm.entries import Swept, axis_at, entries_in, listed, texts_in
from farm.errors import near_name, quoted
from farm.kinds import Reading, nearest
from farm.prompt_axes import order_axis, read_styles, replace_axes, styles_axis
from farm.prompt_sources import is_lines
from farm.prompts.differing import differing
from farm.settings import PROMPTS, SETTINGS, quotes_hint, read_value, read_values

_SPECIAL = ("replace", "order", "styles", "zip")


def read_sweep(sweep: Table, reading: Reading) -> list[Swept]:
    """The axes of a sweep, in the order written.

    What is wrong is noted; an axis in which nothing is right has no values, so that what speaks of it
    elsewhere in the job is not taken for one mistake more.
    """
    found: list[Swept] = []
    for key, written in sweep.items():
        read = _SPECIAL_AXES.get(key, _setting_axis if key in SETTINGS else _own_axis)
        found += read(key, written, reading)
    return [*found, *(each for entry in found for each in _meant(entry, sweep))]


def _meant(entry: Swept, sweep: Table) -> list[Swept]:
    """For a misspelt axis, one of the name that was meant, so that what speaks of it elsewhere finds it."""
    name = near_name(entry.axis.name, SETTINGS)
    misspelt = name and name not in sweep and not entry.axis.values and entry.axis.name in sweep
    return axis_at(entry.place, name) if name and misspelt else []


def check_axes(swept: Iterable[Swept], reading: Reading) -> None:
    """Note axes without values or with too many, names given twice, and settings that two axes set."""
    names: set[str] = set()
    setters: dict[str, str] = {}
    for place, axis in ((entry.place, entry.axis) for entry in swept):
        if axis.name in names:
            reading.mistakes.add(place, f"sweep: there are two axes called {axis.name!r}")
        if len(axis.values) > MAX_VALUES:
            reading.mistakes.add(place, f"{axis.name}: more than {MAX_VALUES} values are not allowed")
        names.add(axis.name)
        for setting in settings_of(axis):
            other = setters.setdefault(setting, axis.name)
            if other != axis.name:
                what = f"{axis.name}: sets {setting}, which the axis {other!r} sets as well"
                reading.mistakes.add(place, what)


def settings_of(axis: Axis) -> list[str]:
    """The settings that an axis sets, for any of its values."""
    return list(dict.fromkeys(name for value in axis.values for name in value.settings))


def _setting_axis(key: Text, written: Written, reading: Reading) -> list[Swept]:
    if isinstance(written, Table):
        if key in PROMPTS and is_lines(written):  # of a file in which nothing is right
            return axis_at(key.place, str(key))
        hint = quotes_hint(key, written) or f"; values such as {_EXAMPLES.get(key, '[a, b]')}"
        what = f"{key}: a mapping is not allowed{hint}"
        reading.mistakes.add(written.place, what)
        return axis_at(key.place, str(key))
    entries = entries_in(key, written, reading)
    values: list[AxisValue] = []
    for kind, run in groupby(entries, key=type):
        if kind is Text:
            texts = [item for item in run if isinstance(item, Text)]
            values += [
                AxisValue(title, {str(key): value}) for title, value in read_values(key, texts, reading)
            ]
        else:
            values += _titled(run, key, reading)
    return axis_at(key.place, str(key), _told_apart(values, key) if key in PROMPTS else values)


def _told_apart(values: Sequence[AxisValue], name: str) -> list[AxisValue]:
    """Prompts with titles that say only what differs from all others; those that have a title keep it."""
    texts = [str(value.settings.get(name, "")) for value in values]
    plain = {value.title for value, text in zip(values, texts) if value.title == text}
    taken = {value.title for value in values} - plain
    titles = {
        text: text if title in taken else title
        for text, title in zip(texts, differing(texts))
        if text in plain
    }
    return [replace(value, title=titles.get(value.title, value.title)) for value in values]


_EXAMPLES = {"steps": "[5, 10, 20]", "cfg_scale": "1-13 (+2)", "sampler": "[Euler a, Heun] or all"}


def _own_axis(key: Text, written: Written, reading: Reading) -> list[Swept]:
    if not isinstance(written, Items) or not all(isinstance(item, Table) for item in written):
        near = nearest(key, (*SETTINGS, *_SPECIAL))
        what = f"{key} is not a setting{near} (an axis of your own is a list of mappings with a title)"
        reading.mistakes.add(key.place, f"sweep: {what}")
        return axis_at(key.place, str(key))
    return axis_at(key.place, str(key), _titled(entries_in(key, written, reading), key, reading))


def _titled(tables: Iterable[Written], name: str, reading: Reading) -> list[AxisValue]:
    """Values that are mappings: a title, and the settings it stands for."""
    values: dict[str, AxisValue] = {}
    for table in tables:
        if not isinstance(table, Table):
            continue
        title = table.get("title")  # type: ignore[call-overload]
        if not isinstance(title, Text) or not title.strip():
            what = f"{name}: a mapping needs a title and settings{quotes_hint(name, table)}"
            reading.mistakes.add(table.place, what)
        elif title.strip() in values:
            reading.mistakes.add(title.place, f"{name}: the title {quoted(title)} stands twice")
        else:
            styles = read_styles(name, table[Text("styles")], reading) if Text("styles") in table else ()
            settings = _settings(table, name, reading)
            values[title.strip()] = AxisValue(title.strip(), settings, styles=styles)
    return list(values.values())


def _settings(table: Table, name: str, reading: Reading) -> Mapping[str, SettingValue]:
    settings: dict[str, SettingValue] = {}
    for key, written in table.items():
        if key in ("title", "styles"):
            continue
        if key not in SETTINGS:
            reading.mistakes.add(key.place, f"{name}: {key} is not a setting{nearest(key, SETTINGS)}")
        elif (value := read_value(key, written, reading)) is not None:
            settings[str(key)] = value[1]
    if len(table) < 2:
        reading.mistakes.add(table.place, f"{name}: a mapping needs settings beside its title")
    return settings


def _zip_axes(key: Text, written: Written, reading: Reading) -> list[Swept]:
    found: list[Swept] = []
    for table in listed(written):
        if isinstance(table, Table) and table:
            found += _zipped(table, reading)
        else:
            what = "zip: settings with their values, as in {sampler: [Euler a, Heun], steps: [20, 10]}"
            reading.mistakes.add(table.place, what)
    return found


def _zipped(table: Table, reading: Reading) -> list[Swept]:
    before = len(reading.mistakes)
    columns: dict[str, Sequence[AxisValue]] = {}
    for key, written in table.items():
        if key in SETTINGS:
            values = read_values(key, texts_in(key, written, reading), reading)
            columns[str(key)] = [AxisValue(title, {str(key): value}) for title, value in values]
        elif key == "styles":
            columns[str(key)] = styles_axis(key, written, reading)[0].axis.values
        else:
            reading.mistakes.add(key.place, f"zip: {key} is not a setting{nearest(key, SETTINGS)}")
    place, name = next(iter(table)).place, " + ".join(columns)
    if len(reading.mistakes) != before:
        return axis_at(place, name)
    if len({len(values) for values in columns.values()}) != 1:
        lengths = ", ".join(f"{setting} {len(values)}" for setting, values in columns.items())
        reading.mistakes.add(place, f"zip: as many values are wanted for each setting; there are: {lengths}")
        return axis_at(place, name)
    rows = zip(*columns.values(), strict=True)
    return axis_at(place, name, [_joined(row) for row in rows])


def _joined(row: Sequence[AxisValue]) -> AxisValue:
    title = " + ".join(value.title for value in row)
    settings = {name: setting for value in row for name, setting in value.settings.items()}
    return AxisValue(title, settings, styles=tuple(style for value in row for style in value.styles))


_SPECIAL_AXES: Mapping[str, Callable[[Text, Written, Reading], list[Swept]]] = {
    "replace": replace_axes,
    "order": order_axis,
    "styles": styles_axis,
    "zip": _zip_axes,
}
