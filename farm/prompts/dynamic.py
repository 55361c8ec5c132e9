"""Dynamic prompts: `{a|b}`, `__wildcard__` and what else the library dynamicprompts reads."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from dynamicprompts.commands import (
    Command,
    SequenceCommand,
    VariantCommand,
    WildcardCommand,
    WrapCommand,
)
from dynamicprompts.commands.variable_commands import VariableAccessCommand, VariableAssignmentCommand
from dynamicprompts.enums import SamplingMethod
from dynamicprompts.parser.parse import parse
from dynamicprompts.samplers.base import Sampler
from dynamicprompts.sampling_context import SamplingContext
from pyparsing import ParseBaseException

from farm.errors import described, quoted
from farm.prompts.hiding import hidden, is_dynamic, shown
from farm.prompts.variants import Drawing, Multiplying, Values, multiplied
from farm.prompts.wildcards import BadDynamic, Manager, Wildcards, references

MOST = 10_000
"""Texts that one text may be multiplied out to."""

_MOST_BRACES = 2000
"""In one text: the library takes some milliseconds for each."""

_MOST_ALIKE = 5
"""Values of a wildcard that cannot be read and are told one by one."""

# Values that are read at once: braces without others in them, names without patterns put together.
_SIMPLE = re.compile(
    r"(?:[^{}$%#_\\\[\]/]|\{[^\W_](?:[^\W_]|[ ,.'|-])*\}|__[^\W_](?:[^\W_]|[/ -])*__)*", re.ASCII
)


class DynamicPrompts:
    """Reads dynamic prompts, each text once.

    Args:
        wildcards: that they can use.
    """

    def __init__(self, wildcards: Wildcards) -> None:
        self._wildcards = wildcards
        self._values = Values()
        self._managers = {weighted: Manager(wildcards, weighted) for weighted in (False, True)}
        self._commands: dict[str, Command] = {}
        self._sound: set[str] = set()
        self._unreadable: set[str] = set()

    def variants(self, text: str, most: int = MOST) -> list[str]:
        """All texts that a text stands for, each once.

        Args:
            text: a prompt; weights do not count.
            most: with more than that, one more than that is given.

        Raises:
            BadDynamic: if it cannot be read, or stands for nothing.
        """
        if not is_dynamic(text):
            return [text]
        command = self._checked(text)
        sampler = Multiplying(self._values)
        context = self._context(SamplingMethod.COMBINATORIAL, sampler, Random(0))
        with _understood(text):
            texts = dict[str, None]()
            for result in multiplied(command, context):
                if (found := shown(result.text)) not in texts:
                    texts[found] = None
                    sampler.found()
                if len(texts) > most:
                    break
        if not texts:
            raise BadDynamic(f"{quoted(text)} stands for no text at all")
        return list(texts)

    def choice(self, text: str, seed: str) -> str:
        """One of the texts that a text stands for: for a seed always the same, on any machine.

        Args:
            text: a prompt.
            seed: any text.

        Raises:
            BadDynamic: if it cannot be read.
        """
        if not is_dynamic(text):
            return text
        command = self._checked(text)
        context = self._context(SamplingMethod.RANDOM, Drawing(self._values), Random(seed))
        with _understood(text):
            return shown(next(iter(context.sample_prompts(command))).text)

    def _context(self, method: SamplingMethod, sampler: Sampler, rand: Random) -> SamplingContext:
        weighted = method is SamplingMethod.RANDOM
        return SamplingContext(
            default_sampling_method=method,
            wildcard_manager=self._managers[weighted],
            samplers=dict.fromkeys(SamplingMethod, sampler),
            rand=rand,
        )

    def check(self, text: str) -> None:
        """Read a text, and look at every wildcard that it can come to use.

        Raises:
            BadDynamic: if it cannot be read, or wildcards are not there or lead back to themselves.
        """
        if not is_dynamic(text):
            return
        faults: dict[str, None] = {}
        self._look_at_value(text, (), faults)
        if faults:
            raise BadDynamic(*faults)

    def _checked(self, text: str) -> Command:
        if text not in self._commands:
            command = self._read(text)
            faults: dict[str, None] = {}
            self._look_at(command, (), faults)
            if faults:
                raise BadDynamic(*faults)
            self._commands[text] = command
        return self._commands[text]

    def _read(self, text: str) -> Command:
        given = hidden(text)
        if not given.strip():
            raise BadDynamic(f"{quoted(text)} is nothing but a comment: lines that begin with # are left out")
        if given.count("{") + given.count("__") > _MOST_BRACES:
            raise BadDynamic(f"{quoted(text)} has more than {_MOST_BRACES} braces and __, which are too many")
        try:
            with _understood(text):
                return parse(given)
        except ParseBaseException as error:
            rest = quoted(shown(given[error.loc : error.loc + 40]))
            raise BadDynamic(f"{quoted(text)} cannot be read from {rest} on; is it closed?") from error

    def _look_at(self, command: Command, inside: tuple[str, ...], faults: dict[str, None]) -> None:
        if isinstance(command, WildcardCommand) and isinstance(path := command.wildcard, str):
            self._look_for(shown(path), inside, faults)
        for part in _parts(command):
            self._look_at(part, inside, faults)

    def _look_for(self, pattern: str, inside: tuple[str, ...], faults: dict[str, None]) -> None:
        try:
            for name in self._wildcards.matching(pattern):
                self._look_into(name, inside, faults)
        except BadDynamic as error:
            faults[str(error)] = None

    def _look_into(self, name: str, inside: tuple[str, ...], faults: dict[str, None]) -> None:
        if name in inside:
            faults[f"the wildcard {name!r} leads back to itself: {' → '.join((*inside, name))}"] = None
            return
        if name in self._unreadable:
            faults[f"the wildcard {name!r} has values that cannot be read"] = None  # which ones was said
        if name in self._sound or name in self._unreadable:
            return
        before, bad = len(faults), 0
        for index, value in enumerate(self._wildcards.values[name]):
            if not is_dynamic(value):
                continue
            try:
                self._look_at_value(value, (*inside, name), faults)
            except BadDynamic as error:
                bad += 1
                if bad <= _MOST_ALIKE:
                    faults[f"wildcard {name!r}{self._wildcards.where(name, index)}: {error}"] = None
        if bad > _MOST_ALIKE:
            faults[f"wildcard {name!r}: and {bad - _MOST_ALIKE} more like these"] = None
        if bad:
            self._unreadable.add(name)
        elif len(faults) == before:
            self._sound.add(name)

    def _look_at_value(self, value: str, inside: tuple[str, ...], faults: dict[str, None]) -> None:
        if _SIMPLE.fullmatch(value):
            for name in references(value):
                self._look_for(name, inside, faults)
        else:
            self._look_at(self._read(value), inside, faults)


def _parts(command: Command) -> Iterator[Command]:
    match command:
        case SequenceCommand():
            yield from command.tokens
        case VariantCommand():
            yield from command.values
        case WildcardCommand():
            yield from command.variables.values()
            yield from [command.wildcard] if isinstance(command.wildcard, Command) else []
        case VariableAssignmentCommand():
            yield command.value
        case VariableAccessCommand():
            yield from [command.default] if command.default else []
        case WrapCommand():
            yield from (command.wrapper, command.inner)


@contextmanager
def _understood(text: str) -> Iterator[None]:
    """Turn what the library raises into mistakes: it has no exceptions of its own.

    Raises:
        BadDynamic: for everything but what its parser refuses.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (BadDynamic, ParseBaseException):
        raise
    except RecursionError as error:
        raise BadDynamic(f"{quoted(text)} is nested too deeply, or has too many variants") from error
    except RuntimeError as error:  # a generator of the library that had nothing to give
        raise BadDynamic(f"{quoted(text)} stands for no text at all") from error
    except KeyError as error:
        raise BadDynamic(f"{quoted(text)} cannot be read: {error.args[0]}") from error
    except Exception as error:
        raise BadDynamic(f"{quoted(text)} cannot be read: {described(error)[:200]}") from error
