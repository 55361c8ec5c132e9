"""What a job writes for a scheduler of diffusers: `diffusers:ClassName(option=value, …)`."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from farm.cell import SETTING_NAMES
from farm.diffusers_schedulers import (
    PREFIX,
    BadScheduler,
    Option,
    Scheduler,
    class_name,
    scheduler_facts,
)
from farm.errors import near_name, quoted

FLOW = "flow_prediction"
"""How diffusers calls what networks of rectified flow predict."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A scheduler with options, as a job names it.

    Attributes:
        scheduler: the class.
        options: as written, by their names in alphabetical order.
    """

    scheduler: Scheduler
    options: Mapping[str, Any]

    @property
    def spelling(self) -> str:
        """The one canonical way to write it."""
        inside = ", ".join(f"{name}={written(value)}" for name, value in self.options.items())
        return f"{PREFIX}{self.scheduler.name}" + (f"({inside})" if inside else "")

    def value(self, name: str) -> Any:
        """Of an option: as written, else its default; None if there is no such option.

        A checkpoint's configuration may say another one.
        """
        option = self.scheduler.options.get(name)
        return self.options.get(name, option.default if option else None)

    @property
    def solver_order(self) -> int:
        """Of the method; classes that do not say have the order of their evaluations."""
        order = self.value("solver_order") or self.value("predictor_order") or self.scheduler.order
        return int(order)

    @property
    def is_stochastic(self) -> bool:
        """Whether it adds noise while it samples, with its defaults where nothing is written."""
        step = self.scheduler.step
        if "noise_sampler_seed" in self.scheduler.options:
            return True
        if "generator" not in step or "eta" in step:
            return False
        if "s_churn" in step:
            return bool(self.value("stochastic_sampling"))
        algorithm = str(self.value("algorithm_type"))
        return algorithm.startswith("sde") or "dpmsolver" not in algorithm

    def misfit(self, config: Mapping[str, Any]) -> str:
        """Why it cannot serve a checkpoint; empty if it can.

        The network must say what the scheduler expects to hear, over the noise levels that it knows.

        Args:
            config: the checkpoint's `scheduler_config.json`; what it says is inherited.
        """
        takes, said, given = self.scheduler.options, {**config, **self.options}, predicted(config)
        over_flow = self.scheduler.is_flow or bool(said.get("use_flow_sigmas") and "use_flow_sigmas" in takes)
        wanted = FLOW if self.scheduler.is_flow else "epsilon"
        if "prediction_type" in takes:
            wanted = str(said.get("prediction_type", "epsilon"))
        if (wanted, over_flow) == (given, given == FLOW):
            return ""
        levels = " over flow's noise levels" if over_flow and wanted != FLOW else ""
        levels = " over training's noise levels" if wanted == FLOW and not over_flow else levels
        can_flow = given == FLOW and "use_flow_sigmas" in takes
        hint = f"; flow needs (prediction_type={FLOW}, use_flow_sigmas=true)" if can_flow else ""
        return f"it is for networks that predict {wanted}{levels}; the checkpoint's predicts {given}{hint}"


def as_predicting(config: Mapping[str, Any], prediction_type: str | None) -> dict[str, Any]:
    """A checkpoint's `scheduler_config.json`, with what its network predicts if somebody says that.

    Args:
        config: the file's content.
        prediction_type: in the words of diffusers; None leaves it as it is.
    """
    return {**config, **({} if prediction_type is None else {"prediction_type": prediction_type})}


def predicted(config: Mapping[str, Any]) -> str:
    """What a checkpoint's network predicts, by its `scheduler_config.json`."""
    if "prediction_type" in config:
        return str(config["prediction_type"])
    return FLOW if "Flow" in str(config.get("_class_name")) else "epsilon"


def is_scheduler(name: str) -> bool:
    """Whether a sampler's name speaks of diffusers."""
    return name.strip().casefold().startswith(PREFIX)


@lru_cache(maxsize=1024)
def chosen(name: str) -> Chosen:
    """Reads `diffusers:ClassName` or `diffusers:ClassName(option=value, …)`, in any case.

    Raises:
        BadScheduler: for a class that is not there or does not suit, or options that it does not take.
    """
    if (match := _CALL.fullmatch(name)) is None:
        raise BadScheduler(f"{quoted(name.strip())} is not written {PREFIX}ClassName(option=value, …)")
    scheduler = scheduler_facts(class_name(match["name"]))
    options: dict[str, Any] = {}
    for option, text in _split(match["options"] or ""):
        if option in options:
            raise BadScheduler(f"{option} is written twice in {quoted(name.strip())}")
        options[option] = _checked(scheduler, option, text)
    return Chosen(scheduler, dict(sorted(options.items())))


_CALL = re.compile(rf"\s*{PREFIX}\s*(?P<name>\w*)\s*(?:\((?P<options>.*)\))?\s*", re.IGNORECASE | re.DOTALL)
_OPTION = re.compile(
    r"""\s*(?P<name>\w+)\s*=\s*(?P<value>\[[^\[\]]*\]|"[^"]*"|'[^']*'|[^,\[\]"']+?)\s*(?:,|$)"""
)
_WORD = re.compile(r"[A-Za-z][\w.+-]*")
_QUOTED = re.compile(r"""(["'])(?P<word>[\w.+ /-]*)\1""")
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
_MAX_DIGITS = 18
_NEEDS = {
    "variance_type=learned": "a network that predicts a variance too",
    "variance_type=learned_range": "a network that predicts a variance too",
    "use_dynamic_shifting=true": "a pipeline that shifts by the picture's size",
}


def _split(text: str) -> Iterator[tuple[str, str]]:
    """Names of options, in lower case as all of theirs are, and what is written for them."""
    position = 0
    while text[position:].strip():
        if (match := _OPTION.match(text, position)) is None:
            raise BadScheduler(f"{quoted(text[position:].strip())} is not written option=value, …")
        yield match["name"].casefold(), match["value"].strip()
        position = match.end()


def _checked(scheduler: Scheduler, name: str, text: str) -> Any:
    if (option := scheduler.options.get(name)) is None:
        near = near_name(name, scheduler.options)
        hint = f"did you mean {near!r}?" if near else f"it has {', '.join(scheduler.options)}"
        if name in scheduler.step and name in SETTING_NAMES:
            hint = f"{name} is a setting of the job"
        raise BadScheduler(f"{scheduler.name} has no option {quoted(name)}; {hint}")
    try:
        value = _value(text)
    except BadScheduler as mistake:
        raise BadScheduler(f"{name} of {scheduler.name}: {mistake}") from mistake
    if value is None and (option.nullable or option.default is None):
        return None
    given = quoted(f"{name}={text}")
    if (allowed := _allowed(option, value)) is not None:
        raise BadScheduler(f"{given} of {scheduler.name} is not allowed; {allowed}")
    value = float(value) if isinstance(option.default, float) else _whole(value)
    if (needs := _NEEDS.get(f"{name}={written(value)}")) is not None:
        raise BadScheduler(f"{given} of {scheduler.name} needs {needs}")
    return value


def _allowed(option: Option, value: Any) -> str | None:
    """What is allowed, if the value is not."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if option.is_object:
        return "only null can be written"
    if option.words:
        return None if value in option.words else " or ".join(option.words)
    match option.default:
        case bool():
            return None if isinstance(value, bool) else "true or false"
        case int():
            return None if number and float(value).is_integer() else "a whole number"
        case float():
            return None if number else "a number"
        case str():
            return None if isinstance(value, str) else "a word"
        case list():
            return None if isinstance(value, list) else "a list"
    return None


def _value(text: str) -> Any:
    if text.startswith("["):
        inside = text[1:-1].strip()
        return [_whole(_value(part.strip())) for part in inside.split(",")] if inside else []
    if in_quotes := _QUOTED.fullmatch(text):
        return in_quotes["word"]
    if text.casefold() in _CONSTANTS:
        return _CONSTANTS[text.casefold()]
    if re.fullmatch(rf"[+-]?\d{{1,{_MAX_DIGITS}}}", text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number == number:
        return number
    if _WORD.fullmatch(text):
        return text
    raise BadScheduler(f"{quoted(text)} is no number, true, false, null, word or list")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def written(value: Any) -> str:
    """A value of an option as a job writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, str):
        plain = _WORD.fullmatch(value) and value.casefold() not in {*_CONSTANTS, "inf", "infinity", "nan"}
        return value if plain else json.dumps(value, ensure_ascii=False)
    return repr(value) if isinstance(value, float) else json.dumps(value)
