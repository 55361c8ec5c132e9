"""What a picture goes through once it is decoded: transforms, screens, scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import PIL.Image
from pydantic import BaseModel, ValidationError

from farm.additions import BadRow, extended
from farm.cell import Cell, PluginUse, Scalar
from farm.errors import CellFailed, described
from farm.hooks import Unavailable, Verdict
from farm.plugins import Plugin, PluginError, Plugins, find_plugins
from farm.sampling import BUILT_IN, Samplers

PASSED = "passed"
"""What stands in a screening plugin's column when it did not object."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A picture after its plugins.

    Attributes:
        image: the final picture, mode RGB.
        columns: verdicts and scores, for the index.
    """

    image: PIL.Image.Image
    columns: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class _Step:
    """A loaded plugin with the settings that a job gives it."""

    name: str
    plugin: Plugin
    settings: BaseModel

    def call(self, hook: str, image: PIL.Image.Image, cell: Cell, wanted: type[Any]) -> Any:
        """The hook's answer; the plugin works on a copy, since it might draw on it."""
        try:
            caller = getattr(self.plugin.call, hook)
            answer = caller(image=image.copy(), cell=cell, settings=self.settings)
        except Unavailable as problem:
            raise CellFailed(f"plugin {self.name!r} {problem}") from problem
        except (Exception, SystemExit) as problem:  # a stranger's code fails its cell, whatever it raises
            raise self.fault(hook, described(problem)) from problem
        if not isinstance(answer, wanted):
            raise self.fault(hook, f"it returned {type(answer).__name__}, not {wanted.__name__}")
        return answer

    def fault(self, hook: str, reason: str) -> CellFailed:
        return CellFailed(f"plugin {self.name!r} failed in {hook}: {reason}")


class Chain:
    """The plugins of a job, loaded in this process.

    A plugin that cannot be loaded here, or is another version than the job was planned with, fails each
    cell by name instead of raising here. Once made, nothing in it changes: `finish` may run in several
    threads at once, and so may each plugin's hooks, for different pictures.
    """

    def __init__(self, uses: Sequence[PluginUse], folders: Sequence[Path]) -> None:
        """Load the plugins by name.

        Args:
            uses: in the order of the job file.
            folders: where plugin files lie, as in `Workspace.plugin_folders`.
        """
        self._steps: tuple[_Step, ...] = ()
        self._samplers = BUILT_IN
        self._fault = ""
        try:
            plugins = find_plugins(folders) if uses else Plugins({})
            self._steps = tuple(_step(use, plugins) for use in uses)
            for info in (step.plugin.info for step in self._steps):
                self._samplers = extended(self._samplers, info.samplers, info.schedules)
        except (PluginError, BadRow) as problem:
            self._fault = str(problem)

    @property
    def samplers(self) -> Samplers:
        """The samplers and schedules that cells with these plugins can name.

        Raises:
            CellFailed: a plugin cannot be loaded here, or is another version.
        """
        if self._fault:
            raise CellFailed(self._fault)
        return self._samplers

    def finish(self, image: PIL.Image.Image, cell: Cell) -> Finished:
        """Transform in the job file's order, then screen, then score what has become of the picture.

        Every screen sees the same picture, so that a verdict does not hang on another plugin's; if one of
        them wants a blackout, the scores are those of the black picture.

        Args:
            image: mode RGB; it is left as it is.
            cell: the cell that it is the picture of.

        Raises:
            CellFailed: a plugin raised or returned something else than its hook promises; names both.
        """
        if self._fault:
            raise CellFailed(self._fault)
        for step in self._implementing("transform_image"):
            image = _transformed(step, image, cell)
        columns: dict[str, Scalar] = {}
        screened = image
        for step in self._implementing("screen_image"):
            verdict: Verdict = step.call("screen_image", image, cell, Verdict)
            columns[step.name] = verdict.reason if verdict.flagged else PASSED
            if verdict.flagged and verdict.action == "blackout":
                screened = PIL.Image.new("RGB", image.size)
        for step in self._implementing("score_image"):
            _add_scores(columns, step, step.call("score_image", screened, cell, dict))
        return Finished(screened, columns)

    def _implementing(self, hook: str) -> tuple[_Step, ...]:
        return tuple(step for step in self._steps if hook in step.plugin.hooks)


def _step(use: PluginUse, plugins: Plugins) -> _Step:
    if use.name not in plugins:
        raise PluginError(f"plugin {use.name!r} is not on this machine")
    plugin = plugins.load(use.name)
    if plugin.info.version != use.version:
        raise PluginError(
            f"plugin {use.name!r} is version {plugin.info.version} on this machine, "
            f"but the job was planned with {use.version}"
        )
    try:
        return _Step(use.name, plugin, plugin.info.settings_model.model_validate_json(use.settings))
    except ValidationError as problem:
        raise PluginError(f"plugin {use.name!r} refuses its settings: {described(problem)}") from problem


def _transformed(step: _Step, image: PIL.Image.Image, cell: Cell) -> PIL.Image.Image:
    answer: PIL.Image.Image = step.call("transform_image", image, cell, PIL.Image.Image)
    if answer.mode != "RGB":
        raise step.fault("transform_image", f"it returned a picture of mode {answer.mode}, not RGB")
    return answer


def _add_scores(columns: dict[str, Scalar], step: _Step, scores: Mapping[object, object]) -> None:
    for key, value in scores.items():
        if not isinstance(key, str) or not key:
            raise step.fault("score_image", f"{key!r} is no name for a score")
        column = column_of(step.name, key)
        if not isinstance(value, Real) or not math.isfinite(value):
            raise step.fault("score_image", f"{column} is {value!r}, not a finite number")
        if column in columns:
            raise step.fault("score_image", f"column {column} is there already")
        columns[column] = float(value)


def column_of(plugin: str, key: str) -> str:
    """The index column of a score: `plugin.key`, unless the key is the plugin's name or starts with it."""
    return key if key == plugin or key.startswith(f"{plugin}.") else f"{plugin}.{key}"
