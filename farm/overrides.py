"""`--set NAME=VALUE`: a job changed for one run; and the text of a job as it was run."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from farm.document import AFTER_FILE, PLAIN_TAG, Items, Mistakes, Place, Table, Text, Written, kind_of
from farm.kinds import Choice, Number, Reading, Seeds, nearest
from farm.settings import SETTINGS, read_values

_OTHERS = ("name", "seeds", "styles", "order", "dynamic_prompts", "max_prompts")


def override(tree: Table, options: Sequence[str], reading: Reading) -> None:
    """Change a job's tree as the options say; the last of those with the same name counts.

    A swept setting's axis is replaced; a setting that gets several values becomes an axis; any other
    entry at the top is replaced or added. `steps` and `evaluations` replace each other.

    Args:
        tree: of the job file; it is changed.
        options: each ``NAME=VALUE``.
        reading: what is known, and the place for what is wrong with the options.
    """
    for number, option in enumerate(options):
        place = Place(AFTER_FILE + number, f"--set {option}")
        name, equals, value = (part.strip() for part in option.partition("="))
        if not equals:
            reading.mistakes.add(place, "NAME=VALUE is wanted, as in steps=20")
        elif name not in SETTINGS and name not in _OTHERS:
            near = nearest(name, (*SETTINGS, *_OTHERS))
            reading.mistakes.add(place, f"{name} is not a setting{near}")
        else:
            _put(tree, Text.at(place, name), Text.at(place, value, _kind(name, value)), reading)


def _kind(name: str, value: str) -> str:
    """YAML's guess where a number is wanted; elsewhere, as for a hash that is all digits, it is a text."""
    return (
        kind_of(value)
        if name in ("seeds", "max_prompts") or isinstance(SETTINGS.get(name), Number | Choice)
        else "str"
    )


_ALTERNATIVES = {"steps": "evaluations", "evaluations": "steps"}


def _put(tree: Table, name: Text, value: Text, reading: Reading) -> None:
    if other := _ALTERNATIVES.get(name):
        _give_way(tree, Text(other), name)
    sweep = tree.get(Text("sweep"))
    swept = isinstance(sweep, Table) and name in sweep
    if not swept and not _is_several(name, value, reading):
        _replace(tree, name, value)
        return
    if not isinstance(sweep, Table):
        sweep = Table()
        sweep.place = name.place
        tree[Text.at(name.place, "sweep")] = sweep
    _replace(sweep, name, value)
    if name == "seed":
        tree.pop(Text("seeds"), None)


def _replace(table: Table, name: Text, value: Text) -> None:
    """Put a value where the old one stands; its key, too, so that its place is known as the option's."""
    entries = [(name, value) if key == name else (key, old) for key, old in table.items()]
    table.clear()
    table.update(entries)
    table[name] = value


def _give_way(tree: Table, other: Text, name: Text) -> None:
    """Put `name` where its alternative stands: at the top, among the axes and on the sheet."""
    tree.pop(other, None)
    sweep, sheet = tree.get(Text("sweep")), tree.get(Text("sheet"))
    if isinstance(sweep, Table) and other in sweep:
        axes = [(name if key == other else key, axis) for key, axis in sweep.items() if key != name]
        sweep.clear()
        sweep.update(axes)
        if isinstance(sheet, Table):
            sheet.update([(key, _renamed(axis, other, name)) for key, axis in sheet.items()])


def _renamed(axis: Written, other: Text, name: Text) -> Written:
    if isinstance(axis, Items):
        axis[:] = [_renamed(each, other, name) for each in axis]
    return Text.at(axis.place, name) if axis == other else axis


def _is_several(name: str, value: Text, reading: Reading) -> bool:
    if name not in SETTINGS:
        return name == "order"  # which is an axis always
    return len(read_values(name, [value], replace(reading, seeds=Seeds(), mistakes=Mistakes()))) > 1


def job_text(tree: Table, name: str, drawn: Iterable[int]) -> str:
    """A job file for a tree, with its name and the seeds that were drawn."""
    data = _data(tree) | {"name": name}
    if drawn:
        data["drawn_seeds"] = list(drawn)
    buffer = io.StringIO()
    yaml = YAML(typ="rt", pure=True)
    yaml.Representer = _Representer
    yaml.width = 1 << 20
    yaml.allow_unicode = True
    yaml.dump({"name": name} | data, buffer)
    return buffer.getvalue()


def _data(written: Written) -> Any:
    if isinstance(written, Table):
        return {_scalar(key): _data(value) for key, value in written.items()}
    if isinstance(written, Items):
        return [_data(item) for item in written]
    return _scalar(written)


def _scalar(text: Text) -> Any:
    """A value that is written, and read back, as the same text; numbers stay without quotes."""
    if text.tag in ("int", "float"):
        return text
    if text.tag in ("null", "bool"):
        return {"": None, "true": True, "false": False}.get(text, str(text))
    return str(text)


class _Representer(RoundTripRepresenter):
    """Writes a number as it was typed: `1.50` and not 1.5, which would be another text."""


_Representer.add_representer(Text, lambda to, text: to.represent_scalar(PLAIN_TAG + text.tag, str(text)))
