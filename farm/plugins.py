"""Finding plugins by name and loading them, each on its own so that a broken one harms nobody else."""

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from pydantic import BaseModel

from farm import hooks
from farm.additions import BadRow, check_added
from farm.errors import FarmError, described
from farm.uses import PluginInfo

CHANGES_PIXELS = frozenset({"transform_image", "screen_image", "samplers", "schedules"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class NoSettings(hooks.PluginSettings):
    """The settings of a plugin that has none."""


class PluginError(FarmError):
    """A plugin cannot be loaded; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A loaded plugin.

    Attributes:
        info: what a job needs to know about it.
        origin: the file or the package it comes from.
        hooks: the names of the hooks that it implements.
        call: its hooks, as attributes; called with keywords.
    """

    info: PluginInfo
    origin: str
    hooks: frozenset[str]
    call: pluggy.HookRelay


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a plugin comes from, before anything of it was imported."""

    name: str
    origin: str
    load: Callable[[], tuple[object, str]]  # the object that holds the hooks, and its version


class Plugins(Mapping[str, PluginInfo]):
    """Every plugin there is, by name; each is imported when it is first asked for, and only then.

    Looking one up raises `PluginError` if it is broken. `in`, `len` and iterating import nothing.
    """

    def __init__(self, sources: Mapping[str, _Source]) -> None:
        self._sources = dict(sources)
        self._loaded: dict[str, Plugin | PluginError] = {}

    def __getitem__(self, name: str) -> PluginInfo:
        return self.load(name).info

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def load(self, name: str) -> Plugin:
        """The plugin itself; a second call gives the same one.

        Raises:
            KeyError: there is no such plugin.
            PluginError: it fails to import, or what it offers is wrong.
        """
        if name not in self._loaded:
            self._loaded[name] = _loaded(self._sources[name])
        found = self._loaded[name]
        if isinstance(found, PluginError):
            raise found
        return found


def find_plugins(folders: Sequence[Path]) -> Plugins:
    """Every plugin in these folders and in installed packages, by name.

    A later folder overrides an earlier one, and any folder an installed package. Cheap: nothing is
    imported yet.

    Args:
        folders: as in `Workspace.plugin_folders`; each `*.py` file in them is a plugin, unless its name
            starts with an underscore.
    """
    sources = _installed()
    for folder in folders:
        for path in sorted(folder.glob("[!_.]*.py")):
            sources[path.stem] = _Source(path.stem, str(path), partial(_run_file, path))
    return Plugins(sources)


def _installed() -> dict[str, _Source]:
    sources: dict[str, _Source] = {}
    for entry in entry_points(group=hooks.PROJECT):
        package = entry.dist.name if entry.dist else entry.module
        source = _Source(entry.name, f"package {package}", partial(_import_entry, entry))
        if rival := sources.get(entry.name):
            source = _Source(entry.name, f"{rival.origin} and {source.origin}", _refuse_two)
        sources[entry.name] = source
    return sources


def _refuse_two() -> tuple[object, str]:
    raise PluginError("two installed packages offer a plugin of this name; uninstall one")


def _run_file(path: Path) -> tuple[object, str]:
    """Run a plugin's file as a module of its own.

    Not through the import system: its cached bytecode is told from the source by size and second, so an
    edited plugin could run as it was while its version says otherwise.
    """
    source = path.read_bytes()
    module = ModuleType(f"farm_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # pydantic and dataclasses look annotations up here
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module, _declared_version(module) or f"source-{hashlib.sha256(source).hexdigest()[:12]}"


def _import_entry(entry: EntryPoint) -> tuple[object, str]:
    plugin = entry.load()
    return plugin, _declared_version(plugin) or (entry.dist.version if entry.dist else "0")


def _declared_version(plugin: object) -> str:
    return str(getattr(plugin, "__version__", ""))


def _loaded(source: _Source) -> Plugin | PluginError:
    try:
        if not _NAME.fullmatch(source.name):
            raise PluginError("a plugin's name is made of letters, digits, '_' and '-'")
        return _checked(source, *source.load())
    except hooks.Unavailable as problem:
        return PluginError(f"plugin {source.name!r} {problem}")
    except (PluginError, BadRow) as problem:
        return PluginError(f"plugin {source.name!r} ({source.origin}): {problem}")
    except (Exception, SystemExit) as problem:  # it is a stranger's code: whatever it raises is its fault
        return PluginError(f"plugin {source.name!r} ({source.origin}) cannot be loaded: {described(problem)}")


def _checked(source: _Source, plugin: object, version: str) -> Plugin:
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    known = sorted(vars(manager.hook))
    manager.register(plugin, source.name)
    callers = manager.get_hookcallers(plugin) or []
    _refuse_unknown_hooks(callers, known)
    _refuse_bare_functions(plugin, {caller.name for caller in callers}, known)
    implemented = frozenset(caller.name for caller in callers) & frozenset(known)
    if not implemented - {"settings_model"}:
        raise PluginError(f"implements no hook; there are {', '.join(known)}")
    rows, schedules = check_added(
        manager.hook.samplers() if "samplers" in implemented else (),
        manager.hook.schedules() if "schedules" in implemented else (),
    )
    info = PluginInfo(
        name=source.name,
        version=version,
        touches_pixels=bool(implemented & CHANGES_PIXELS),
        settings_model=_settings_model(manager.hook, implemented),
        samplers=rows,
        schedules=schedules,
    )
    return Plugin(info, source.origin, implemented, manager.hook)


def _refuse_unknown_hooks(callers: Sequence[pluggy.HookCaller], known: Sequence[str]) -> None:
    """What `PluginManager.check_pending` does, in words that help; and no hook is implemented twice."""
    for caller in callers:
        implementations = caller.get_hookimpls()
        if len(implementations) > 1:
            raise PluginError(f"implements {caller.name} twice")
        if not caller.has_spec() and not implementations[0].optionalhook:
            near = get_close_matches(caller.name, known, n=1)
            hint = f"; did you mean {near[0]}? There are" if near else "; there are"
            raise PluginError(f"unknown hook {caller.name!r}{hint} {', '.join(known)}")


def _refuse_bare_functions(plugin: object, implemented: set[str], known: Sequence[str]) -> None:
    for name in known:
        if name not in implemented and callable(getattr(plugin, name, None)):
            raise PluginError(f"{name} stands there without @hookimpl")


def _settings_model(call: pluggy.HookRelay, implemented: frozenset[str]) -> type[BaseModel]:
    if "settings_model" not in implemented:
        return NoSettings
    model: Any = call.settings_model()
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise PluginError(
            f"settings_model gave {model!r}, not a class derived from farm.hooks.PluginSettings"
        )
    if model.model_config.get("extra") != "forbid":
        raise PluginError(
            f"{model.__name__} lets misspelt settings pass; derive it from farm.hooks.PluginSettings"
        )
    return model
