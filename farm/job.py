"""A job file, read and checked: what is wanted, before it is multiplied out."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from farm.axes import Axis, AxisValue
from farm.cell import PluginUse, Settings
from farm.document import (
    AFTER_FILE,
    Mistakes,
    Place,
    Table,
    Text,
    place_of,
    plain_data,
    read_table,
    read_text,
)
from farm.errors import FarmError
from farm.jobfile import DEFAULTS, check_shape, job_schema, list_at, table_at
from farm.layout import Layout, read_layout
from farm.overrides import job_text, override
from farm.settings import MAX_SEED, SETTINGS, Names, Reading, Seeds, nearest, read_value
from farm.skip import Skip, read_skips
from farm.sweep import Swept, check_axes, read_sweep, settings_of

__all__ = ["MAX_CELLS", "Job", "PluginInfo", "Vocabulary", "job_schema", "load_job", "read_drawn"]

MAX_CELLS = 1_000_000
"""Of one job, before anything is skipped."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|index\.html", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What a job needs to know of a plugin.

    Attributes:
        name: as job files write it.
        version: of the plugin; part of a picture's key if it touches pixels.
        touches_pixels: whether it transforms or screens pictures.
        settings_model: reads its settings.
    """

    name: str
    version: str
    touches_pixels: bool
    settings_model: type[BaseModel]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that a job can use, beside those of `farm.sampling`.

    Attributes:
        models: canonical names of checkpoints, each with the other names it answers to.
        plugins: by name.
    """

    models: Names
    plugins: Mapping[str, PluginInfo]


@dataclass(frozen=True, slots=True)
class Job:
    """A job without mistakes.

    Attributes:
        name: of the job, and of its folder under results/.
        base: the settings that hold where no axis sets them.
        axes: in the order of the file.
        skips: rules that drop combinations.
        layout: of the sheet.
        plugins: in the order of the file, with complete settings.
        drawn: the random seeds, in the order in which they were drawn.
        job_yaml: a job file that gives the same cells: the file as it is, unless options, the job's name or
            drawn seeds have to be written in.
    """

    name: str
    base: Settings
    axes: tuple[Axis, ...]
    skips: tuple[Skip, ...]
    layout: Layout
    plugins: tuple[PluginUse, ...]
    drawn: tuple[int, ...]
    job_yaml: str


def load_job(
    path: Path,
    vocabulary: Vocabulary,
    overrides: Sequence[str] = (),
    drawn: Sequence[int] = (),
) -> Job:
    """Read a job file.

    Args:
        path: of the file.
        vocabulary: the names that it can use.
        overrides: texts such as ``steps=20``, which change the job for this run.
        drawn: the random seeds of an earlier run, in order; they are used before any is drawn.

    Raises:
        BadInput: with every mistake in the file and the overrides.
    """
    mistakes = Mistakes()
    text = read_text(path)
    tree = read_table(text, path, mistakes)
    override(tree, overrides, vocabulary.models, mistakes)
    check_shape(tree, mistakes)
    written_seeds = _drawn_seeds(tree, mistakes)
    reading = Reading(vocabulary.models, Seeds(drawn or written_seeds), mistakes)
    name = _name(tree, path, mistakes)
    base = _base(tree, reading)
    swept = _axes(tree, base, reading)
    axes = tuple(entry.axis for entry in swept)
    _check_base(tree, base, axes, mistakes)
    skips = read_skips(list_at(tree, "skip"), axes, reading)
    layout = read_layout(table_at(tree, "sheet"), axes, reading)
    plugins = _plugins(table_at(tree, "plugins"), vocabulary.plugins, mistakes)
    mistakes.raise_any()
    if overrides or "name" not in tree or reading.seeds.drawn != written_seeds:
        text = job_text(tree, name, reading.seeds.drawn)
    settings = Settings(**{"model": "", "prompt": ""} | base)
    return Job(name, settings, axes, skips, layout, plugins, reading.seeds.drawn, text)


def read_drawn(path: Path) -> tuple[int, ...]:
    """The seeds that an earlier run drew, from the job file in its results; none if there is no such file.

    Raises:
        BadInput: if it is not a job file.
    """
    if not path.exists():
        return ()
    mistakes = Mistakes()
    seeds = _drawn_seeds(read_table(read_text(path), path, mistakes), mistakes)
    mistakes.raise_any()
    return seeds


def _name(tree: Table, path: Path, mistakes: Mistakes) -> str:
    given = tree.get(Text("name"))
    name = given or Text.at(Place(1, str(path)), path.stem)
    if not isinstance(name, Text):
        return ""
    if not _NAME.fullmatch(name) or name.endswith(".") or _RESERVED.fullmatch(name):
        what = f"{str(name)!r} cannot name a folder; letters, digits, - _ and . can, up to 100 of them"
        hint = "" if given else "; the file is called so: write another name into it, as in `name: cats`"
        mistakes.add(name.place, f"name: {what}{hint}")
    return str(name)


def _drawn_seeds(tree: Table, mistakes: Mistakes) -> tuple[int, ...]:
    seeds: list[int] = []
    for text in list_at(tree, "drawn_seeds"):
        if isinstance(text, Text) and text.isascii() and text.isdigit() and int(text[:20]) <= MAX_SEED:
            seeds.append(int(text[:20]))
        else:
            mistakes.add(text.place, f"drawn_seeds: whole numbers from 0 to {MAX_SEED} are wanted")
    return tuple(seeds)


def _base(tree: Table, reading: Reading) -> dict[str, Any]:
    base: dict[str, Any] = dict(DEFAULTS)
    for key, written in tree.items():
        if key in SETTINGS and (value := read_value(key, written, reading)) is not None:
            base[str(key)] = value[1]
    return base


def _axes(tree: Table, base: Mapping[str, Any], reading: Reading) -> list[Swept]:
    sweep = table_at(tree, "sweep")
    swept = [*read_sweep(sweep, reading), *_seeds_axis(tree, int(base["seed"]), reading)]
    check_axes(swept, reading)
    _check_searches(swept, base, reading.mistakes)
    cells = prod(len(entry.axis.values) for entry in swept)
    if cells > MAX_CELLS:
        place = place_of(tree, ("sweep",))
        reading.mistakes.add(place, f"sweep: makes {cells} cells; at most {MAX_CELLS} are allowed")
    return swept


def _seeds_axis(tree: Table, first: int, reading: Reading) -> list[Swept]:
    written = tree.get(Text("seeds"), Text())
    if not written:
        return []
    place, most = place_of(tree, ("seeds",)), min(10_000, MAX_SEED - first + 1)
    count = int(written[:6]) if isinstance(written, Text) and written.isascii() and written.isdigit() else 0
    if not 1 <= count <= most or len(written) > 6:
        reading.mistakes.add(place, f"seeds: {written} is not allowed; a whole number from 1 to {most}")
        return []
    values = [AxisValue(str(seed), {"seed": seed}) for seed in range(first, first + count)]
    return [Swept(place, Axis("seed", tuple(values)))]


def _check_searches(swept: Sequence[Swept], base: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Note texts that are searched for, but stand in no prompt that any combination can have by then."""
    prompts = [str(base.get(name, "")) for name in _PROMPTS]
    values = [(entry, value) for entry in swept for value in entry.axis.values]
    prompts += [str(value.settings.get(name, "")) for _, value in values for name in _PROMPTS]
    for entry, axis in ((entry, entry.axis) for entry in swept):
        for searched in dict.fromkeys(pair[0] for value in axis.values for pair in value.replaces):
            if not any(searched in prompt for prompt in prompts):
                what = f"replace: {searched!r} is in neither the prompt nor the negative prompt"
                mistakes.add(entry.place, what)
        prompts += [pair[1] for value in axis.values for pair in value.replaces]


_PROMPTS = ("prompt", "negative_prompt")


def _check_base(tree: Table, base: Mapping[str, Any], axes: Sequence[Axis], mistakes: Mistakes) -> None:
    """Note settings that are given nowhere, and options that an axis would undo."""
    for name in SETTINGS:
        setter = next((axis for axis in axes if name in settings_of(axis)), None)
        given = next((value for key, value in tree.items() if key == name), None)
        if given is None and name not in base and not (setter and _sets_always(setter, name)):
            mistakes.add(tree.place, f"{name} is missing")
        starts_the_axis = name == "seed" and Text("seeds") in tree
        if setter and isinstance(given, Text) and given.place.line >= AFTER_FILE and not starts_the_axis:
            what = f"{name} is set by the axis {setter.name!r}"
            mistakes.add(given.place, what)


def _sets_always(axis: Axis, name: str) -> bool:
    return all(name in value.settings for value in axis.values)


def _plugins(table: Table, known: Mapping[str, PluginInfo], mistakes: Mistakes) -> tuple[PluginUse, ...]:
    uses: list[PluginUse] = []
    for key, written in table.items():
        try:
            info = known.get(str(key))
        except FarmError as broken:  # it is there, and cannot be loaded
            mistakes.add(key.place, f"plugins: {broken}")
            continue
        if info is None:
            near = nearest(key, known) or f"; there are {', '.join(known) or 'none'}"
            mistakes.add(key.place, f"plugins: {str(key)!r} is not known{near}")
            continue
        try:
            given = plain_data(written)
            settings = info.settings_model.model_validate({} if given is None else given)
        except ValidationError as error:
            for entry in error.errors(include_url=False, include_context=False):
                what = _plugin_complaint(info, entry["type"], entry["loc"], entry["msg"], entry["input"])
                mistakes.add(place_of(table, (str(key), *entry["loc"])), what)
            continue
        stored = json.dumps(settings.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        uses.append(PluginUse(info.name, info.version, stored, info.touches_pixels))
    return tuple(uses)


def _plugin_complaint(
    info: PluginInfo, kind: str, path: tuple[int | str, ...], message: str, value: object
) -> str:
    where = ".".join(("plugins", info.name, *map(str, path)))
    if kind == "extra_forbidden":
        fields = info.settings_model.model_fields
        near = nearest(str(path[-1]), fields) or f"; there are {', '.join(fields) or 'none'}"
        return f"plugins.{info.name} has no setting {str(path[-1])!r}{near}"
    if kind == "missing":
        return f"{where} is missing"
    if kind in ("model_type", "dict_type"):
        return f"{where}: {value!r} is not allowed; a mapping of settings is wanted"
    return f"{where}: {value!r} is not allowed; {message[:1].lower()}{message[1:]}"
