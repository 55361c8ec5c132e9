"""A job file, read and checked: what is wanted, before it is multiplied out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from farm.axes import Axis, AxisValue
from farm.cell import DEFAULTS, PluginUse, SettingValue
from farm.definitions import define
from farm.document import (
    AFTER_FILE,
    MAX_BYTES,
    MAX_NODES,
    Mistakes,
    Place,
    Table,
    Text,
    place_of,
    read_table,
    read_text,
)
from farm.entries import Swept
from farm.errors import BadInput, Problem
from farm.expansion import write_out
from farm.init_images import InitImage, InitImages
from farm.jobfile import check_shape, job_schema, list_at, table_at
from farm.kinds import Names, Reading, Seeds
from farm.layout import Layout, read_layout
from farm.overrides import job_text, override
from farm.prompt_axes import read_styles
from farm.prompt_checks import check_choices, check_styles, check_texts
from farm.prompt_sources import CHOICE, read_sources
from farm.prompts.styles import Style
from farm.prompts.wildcards import Wildcards
from farm.sampling import BUILT_IN, Samplers
from farm.settings import MAX_SEED, NEEDED, SETTINGS, read_value
from farm.skip import Skip, read_skips
from farm.sweep import check_axes, read_sweep, settings_of
from farm.uses import PluginInfo, read_plugins
from farm.written_merges import name_merges

__all__ = ["MAX_CELLS", "Job", "PluginInfo", "Vocabulary", "job_schema", "load_job", "read_drawn"]

MAX_CELLS = 1_000_000
"""Of one job, before anything is skipped."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|index\.html", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that a job can use.

    Attributes:
        models: canonical names of checkpoints, each with the other names it answers to.
        plugins: by name.
        samplers: and schedules, without those of plugins.
        root: the folder in which files are looked for that are not beside a job.
        files: names of what is used beside checkpoints, by its kind: `vae`.
        vaes_beside: the VAE that lies beside a checkpoint, by the name of this.
    """

    models: Names
    plugins: Mapping[str, PluginInfo]
    samplers: Samplers = BUILT_IN
    root: Path = Path()
    files: Mapping[str, Names] = field(default_factory=dict)
    vaes_beside: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """A job without mistakes.

    Attributes:
        name: of the job, and of its folder under results/.
        base: the settings that hold where no axis sets them, by the names of `farm.settings.SETTINGS`.
        axes: in the order of the file.
        skips: rules that drop combinations.
        layout: of the sheet.
        plugins: in the order of the file, with complete settings.
        drawn: the random seeds, in the order in which they were drawn.
        job_yaml: a job file that gives the same cells: the file as it is, unless options, the job's name,
            drawn seeds or what comes from other files have to be written in.
        samplers: that it can name: the built-in ones and those of its plugins.
        places: where the settings that are given stand, by name, and the axis `order`.
        styles: that all its prompts have around them, one after the other.
        wildcards: that dynamic prompts can use from which each cell draws its own; None if it draws nothing.
        warnings: what is no mistake, but looks like one, with its place.
        init_images: that its settings name, by the SHA-256 of their files.
        vaes_beside: as in `Vocabulary`.
    """

    name: str
    base: Mapping[str, SettingValue]
    axes: tuple[Axis, ...]
    skips: tuple[Skip, ...]
    layout: Layout
    plugins: tuple[PluginUse, ...]
    drawn: tuple[int, ...]
    job_yaml: str
    samplers: Samplers = BUILT_IN
    places: Mapping[str, Place] = field(default_factory=dict, compare=False)
    styles: tuple[Style, ...] = ()
    wildcards: Wildcards | None = field(default=None, compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    init_images: Mapping[str, InitImage] = field(default_factory=dict, compare=False)
    vaes_beside: Mapping[str, str] = field(default_factory=dict, compare=False)


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
    named = table_at(tree, "plugins")
    plugins, samplers, complete = read_plugins(named, vocabulary.plugins, vocabulary.samplers, mistakes)
    folders = (path.parent, vocabulary.root)
    images = InitImages(folders)
    unseeded = Reading(
        vocabulary.models, Seeds(), mistakes, samplers, complete, init_images=images, files=vocabulary.files
    )
    override(tree, overrides, unseeded)
    name_merges(tree, mistakes)
    check_shape(tree, mistakes)
    sources = read_sources(tree, folders, mistakes)
    written_out = write_out(tree, sources, path.parent, mistakes)
    written_seeds = _drawn_seeds(tree, mistakes)
    reading = replace(unseeded, seeds=Seeds(drawn or written_seeds), styles=sources.styles)
    name = _name(tree, path, mistakes)
    base = _base(tree, reading)
    styles = read_styles("styles", tree.get(Text("styles"), Text.at(tree.place, "")), reading)
    swept = _axes(tree, base, reading)
    axes = tuple(entry.axis for entry in swept)
    places = _places(tree, swept)
    _check_base(tree, base, axes, mistakes)
    _check_alternatives(places, mistakes)
    check_styles(sources, styles, axes, mistakes)
    check_choices(tree, sources, axes, mistakes)
    skips = read_skips(list_at(tree, "skip"), axes, reading)
    layout = read_layout(table_at(tree, "sheet"), axes, reading)
    mistakes.raise_any()
    defined = define(tree, sources, axes, styles, images)
    if defined or written_out or overrides or "name" not in tree or reading.seeds.drawn != written_seeds:
        text = _text_as_run(tree, name, reading)
    wildcards = sources.wildcards if sources.dynamic == CHOICE else None
    read = (name, base, axes, skips, layout, plugins, reading.seeds.drawn, text, samplers, places)
    return Job(*read, styles, wildcards, mistakes.warnings(), images.found, vocabulary.vaes_beside)


def _text_as_run(tree: Table, name: str, reading: Reading) -> str:
    """A job file for a tree.

    Raises:
        BadInput: if it is too large to be read again.
    """
    text = job_text(tree, name, reading.seeds.drawn)
    if len(text.encode(errors="replace")) > MAX_BYTES or 2 * text.count("\n") > MAX_NODES:
        size = f"{MAX_BYTES // 1024} KiB or {MAX_NODES // 2} lines"
        what = f"with all its texts written out the job is larger than {size}"
        raise BadInput([Problem(str(tree.place), what)])
    return text


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
    check_texts(swept, base, reading.mistakes)
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


def _check_base(tree: Table, base: Mapping[str, Any], axes: Sequence[Axis], mistakes: Mistakes) -> None:
    """Note settings that are given nowhere, and options that an axis would undo."""
    wrong = {name for axis in axes if not axis.values for name in axis.name.split(" + ")}
    for name in SETTINGS:
        setter = next((axis for axis in axes if name in settings_of(axis)), None)
        given = next((value for key, value in tree.items() if key == name), None)
        needed = name in NEEDED and name not in base and name not in wrong
        if needed and given is None and not (setter and _sets_always(setter, name)):
            mistakes.add(tree.place, f"{name} is missing")
        starts_the_axis = name == "seed" and Text("seeds") in tree
        if setter and isinstance(given, Text) and given.place.line >= AFTER_FILE and not starts_the_axis:
            what = f"{name} is set by the axis {setter.name!r}"
            mistakes.add(given.place, what)


def _places(tree: Table, swept: Sequence[Swept]) -> dict[str, Place]:
    """Where each setting that is given stands: on its axis, or else at the top; and the axis `order`."""
    top = {str(key): key.place for key in tree if key in SETTINGS}
    orders = {entry.axis.name: entry.place for entry in swept if entry.axis.name == "order"}
    return top | orders | {name: entry.place for entry in swept for name in settings_of(entry.axis)}


def _check_alternatives(places: Mapping[str, Place], mistakes: Mistakes) -> None:
    if "steps" in places and "evaluations" in places:
        place, other = places["evaluations"], places["steps"]
        mistakes.add(place, f"evaluations: stands in place of steps, which are given too ({other})")


def _sets_always(axis: Axis, name: str) -> bool:
    return all(name in value.settings for value in axis.values)
