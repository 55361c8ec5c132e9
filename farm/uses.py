"""The `plugins:` of a job: which ones, with which settings, and what they add to what can be named."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from farm.additions import BadRow, extended
from farm.cell import PluginUse
from farm.document import Mistakes, Table, Text, Written, place_of, plain_data
from farm.errors import FarmError, quoted
from farm.kinds import nearest
from farm.sampling import Sampler, Samplers, Schedule


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What a job needs to know of a plugin.

    Attributes:
        name: as job files write it.
        version: of the plugin; part of a picture's key if it touches pixels.
        touches_pixels: whether it transforms or screens pictures, or adds samplers or schedules.
        settings_model: reads its settings.
        samplers: that it adds.
        schedules: that it adds.
    """

    name: str
    version: str
    touches_pixels: bool
    settings_model: type[BaseModel]
    samplers: tuple[Sampler, ...] = ()
    schedules: tuple[Schedule, ...] = ()


def read_plugins(
    table: Table, known: Mapping[str, PluginInfo], samplers: Samplers, mistakes: Mistakes
) -> tuple[tuple[PluginUse, ...], Samplers, bool]:
    """What the `plugins:` of a job come to; what is wrong is noted.

    Args:
        table: of the job.
        known: plugins by name.
        samplers: that there are without plugins.
        mistakes: takes what is wrong.

    Returns:
        The plugins that the job asks for, the samplers with those that they add, and whether these are all:
        False if a plugin could not be had, so that nobody knows what it adds.
    """
    uses: list[PluginUse] = []
    infos = [(key, written, _info(key, known, mistakes)) for key, written in table.items()]
    complete = all(info is not None for _, _, info in infos)
    for key, written, info in infos:
        if info is None:
            continue
        try:
            samplers = extended(samplers, info.samplers, info.schedules)
        except BadRow as error:
            mistakes.add(key.place, f"plugins: {info.name}: {error}")
            complete = False
        if (settings := _settings(table, written, info, mistakes)) is not None:
            stored = json.dumps(settings.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
            uses.append(PluginUse(info.name, info.version, stored, info.touches_pixels))
    return tuple(uses), samplers, complete


def _info(key: Text, known: Mapping[str, PluginInfo], mistakes: Mistakes) -> PluginInfo | None:
    try:
        info = known.get(str(key))
    except FarmError as broken:  # it is there, and cannot be loaded
        mistakes.add(key.place, f"plugins: {broken}")
        return None
    if info is None:
        near = nearest(key, known) or f"; there are {', '.join(known) or 'none'}"
        mistakes.add(key.place, f"plugins: {quoted(key)} is not known{near}")
    return info


def _settings(table: Table, written: Written, info: PluginInfo, mistakes: Mistakes) -> BaseModel | None:
    try:
        given = plain_data(written)
        return info.settings_model.model_validate({} if given is None else given)
    except ValidationError as error:
        for entry in error.errors(include_url=False, include_context=False):
            what = _plugin_complaint(info, entry["type"], entry["loc"], entry["msg"], entry["input"])
            mistakes.add(place_of(table, (info.name, *entry["loc"])), what)
    return None


def _plugin_complaint(
    info: PluginInfo, kind: str, path: tuple[int | str, ...], message: str, value: object
) -> str:
    where = ".".join(("plugins", info.name, *map(str, path)))
    if kind == "extra_forbidden":
        fields = info.settings_model.model_fields
        near = nearest(str(path[-1]), fields) or f"; there are {', '.join(fields) or 'none'}"
        return f"plugins.{info.name} has no setting {quoted(str(path[-1]))}{near}"
    if kind == "missing":
        return f"{where} is missing"
    if kind in ("model_type", "dict_type"):
        return f"{where}: {value!r} is not allowed; a mapping of settings is wanted"
    return f"{where}: {value!r} is not allowed; {message[:1].lower()}{message[1:]}"
