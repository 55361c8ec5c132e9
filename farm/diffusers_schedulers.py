"""The schedulers of the installed diffusers as plain facts.

The facts are read from diffusers' sources with `ast`: neither diffusers nor torch is imported, and a file is
read only when a name asks for it.
"""

import ast
import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from farm.errors import near_name, quoted

PREFIX = "diffusers:"
"""What a job writes before the name of a class."""

SUFFIX = "Scheduler"


class BadScheduler(ValueError):
    """A scheduler that cannot be used; the message is one clear line."""


@dataclass(frozen=True, slots=True)
class Option:
    """An argument of a scheduler's constructor.

    Attributes:
        default: what it is if neither the job nor the checkpoint says.
        words: the only ones that are allowed; none if any are.
        nullable: whether it may be null.
        is_object: whether it is a Python object, which cannot be written.
    """

    default: Any
    words: tuple[str, ...]
    nullable: bool
    is_object: bool


@dataclass(frozen=True, slots=True)
class Scheduler:
    """What the source of a scheduler's class says.

    Attributes:
        name: of the class.
        options: arguments of its constructor.
        step: further arguments of `step`, after model_output, timestep and sample.
        order: how often each step asks the model.
        adds_noise: whether it can put noise on a picture to start from.
    """

    name: str
    options: Mapping[str, Option]
    step: tuple[str, ...]
    order: int
    adds_noise: bool

    @property
    def is_flow(self) -> bool:
        """Whether it is for flow matching alone: it knows no noise levels but its own straight line."""
        return not {"beta_schedule", "prediction_type"} & set(self.options)


@cache
def scheduler_facts(name: str) -> Scheduler:
    """Facts about a class.

    Args:
        name: of the class, exactly.

    Raises:
        BadScheduler: if it does not suit text to image.
    """
    if name in NEEDS:
        raise BadScheduler(f"{name} of diffusers needs {NEEDS[name]}: it does not suit text to image")
    methods, order = _read(_modules()[name], name)
    for method, given in _GIVEN.items():
        if (lacking := _lacking(methods.get(method), given)) is not None:
            raise BadScheduler(f"{name} of diffusers needs {lacking}: it does not suit text to image")
    options = {
        argument.arg: _option(argument, default) for argument, default in _arguments(methods["__init__"])
    }
    step = [argument.arg for argument, _ in _arguments(methods["step"])]
    return Scheduler(name, options, tuple(step[len(_GIVEN["step"]) :]), order, "add_noise" in methods)


def suited() -> Iterator[str]:
    """Names of the classes of the installed diffusers that suit text to image. Reads all their files."""
    for name in _modules():
        try:
            scheduler_facts(name)
        except BadScheduler:
            continue
        yield name


def class_name(wanted: str) -> str:
    """The name of a class as diffusers writes it.

    Args:
        wanted: in any case, with or without its last syllables, `Scheduler`.

    Raises:
        BadScheduler: there is none; it names the nearest.
    """
    folded = {name.casefold(): name for name in _modules()}
    for spelling in (wanted.casefold(), (wanted + SUFFIX).casefold()):
        if spelling in folded:
            return folded[spelling]
    short = [name.removesuffix(SUFFIX) for name in folded.values() if name not in NEEDS]
    near = near_name(wanted[:100].removesuffix(SUFFIX), short)
    hint = f"; did you mean {near!r}?" if near else ""
    raise BadScheduler(
        f"diffusers has no scheduler {quoted(wanted)}{hint} (farm samplers --diffusers lists them)"
    )


NEEDS: Mapping[str, str] = {
    "AmusedScheduler": "a network that speaks in tokens",
    "BlockRefinementScheduler": "a network that speaks in tokens",
    "DiscreteDDIMScheduler": "a network that speaks in tokens",
    "EntropyBoundScheduler": "a network that speaks in tokens",
    "VQDiffusionScheduler": "a network that speaks in tokens",
    "CMStochasticIterativeScheduler": "a consistency model with preconditioning of its own",
    "ConsistencyDecoderScheduler": "the network of the consistency decoder",
    "CosineDPMSolverMultistepScheduler": "a network with EDM's preconditioning (Stable Audio)",
    "EDMDPMSolverMultistepScheduler": "a network with EDM's preconditioning",
    "EDMEulerScheduler": "a network with EDM's preconditioning",
    "DDIMInverseScheduler": "a picture, whose noise it finds",
    "DPMSolverMultistepInverseScheduler": "a picture, whose noise it finds",
    "DDPMWuerstchenScheduler": "a network of Würstchen, which counts time from 1 to 0",
    "FlowMapEulerDiscreteScheduler": "a flow map, a network that is told two times",
    "HeliosScheduler": "a network that draws in stages (Helios)",
    "HeliosDMDScheduler": "a network that draws in stages (Helios)",
    "IPNDMScheduler": "a network that was trained on its noise levels and counts time from 1 to 0",
    "KarrasVeScheduler": "two sigmas at each step",
    "MiniMaxH3Scheduler": "a network that counts time from 0 to 1 (MiniMax H3)",
    "PiflowScheduler": "a network with several predictions per channel (PiFlow)",
    "RePaintScheduler": "a picture and a mask",
    "SCMScheduler": "a TrigFlow network (SANA-Sprint)",
    "ScoreSdeVeScheduler": "a score network and a loop of its own",
    "ScoreSdeVpScheduler": "a score network and a loop of its own",
    "UnCLIPScheduler": "a network of unCLIP, trained on noise levels of its own",
}
"""Why a class does not suit, where its signatures do not show it or say it worse."""

_GIVEN = {"set_timesteps": ("num_inference_steps",), "step": ("model_output", "timestep", "sample")}
"""The methods that are called, and with what."""


@cache
def _modules() -> dict[str, Path]:
    """The file of each scheduler's class, from the list in the package's `__init__.py`."""
    found = importlib.util.find_spec("diffusers")  # of a package at the top: it is not imported
    if found is None or not found.submodule_search_locations:
        raise BadScheduler("diffusers is not installed")
    folder = Path(found.submodule_search_locations[0]) / "schedulers"
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    modules: dict[str, Path] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if alias.name.endswith(SUFFIX):
                    modules[alias.name] = folder / f"{node.module}.py"
    return modules


def _read(file: Path, name: str) -> tuple[dict[str, ast.FunctionDef], int]:
    """The methods of a class, and its `order`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    methods = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    orders = [
        ast.literal_eval(node.value)
        for node in body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "order"
    ]
    return methods, orders[0] if orders else 1


def _arguments(method: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None]]:
    """Names and defaults, without `self`."""
    names = [*method.args.posonlyargs, *method.args.args]
    defaults = [None] * (len(names) - len(method.args.defaults)) + method.args.defaults
    return list(zip(names, defaults, strict=True))[1:] + list(
        zip(method.args.kwonlyargs, method.args.kw_defaults)
    )


def _lacking(method: ast.FunctionDef | None, given: tuple[str, ...]) -> str | None:
    """What a method needs beside what it is given, if anything."""
    if method is None:
        return "a loop of its own"
    arguments = _arguments(method)
    if tuple(argument.arg for argument, _ in arguments[: len(given)]) == given:
        given = (*given, *(argument.arg for argument, default in arguments if default is not None))
    others = [
        argument.arg for argument, default in arguments if default is None and argument.arg not in given
    ]
    return " and ".join(others) or None


def _option(argument: ast.arg, default: ast.expr | None) -> Option:
    kind = ast.unparse(argument.annotation) if argument.annotation else ""
    words = [
        word.value
        for literal in (ast.walk(argument.annotation) if argument.annotation else ())
        if isinstance(literal, ast.Subscript) and ast.unparse(literal.value) == "Literal"
        for word in ast.walk(literal.slice)
        if isinstance(word, ast.Constant)
    ]
    is_object = "Callable" in kind or "SchedulerMixin" in kind
    return Option(_default(default), tuple(map(str, words)), "None" in kind, is_object)


def _default(node: ast.expr | None) -> Any:
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:  # as in -float("inf"), 1 / 3
        return -math.inf if "inf" in ast.unparse(node) else 0.0
