"""Dynamic prompts: `{a|b}`, `__wildcard__` and what else the library dynamicprompts reads."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random

from dynamicprompts.commands import (
    Command,
    LiteralCommand,
    SequenceCommand,
    VariantCommand,
    WildcardCommand,
    WrapCommand,
)
from dynamicprompts.commands.variable_commands import VariableAccessCommand, VariableAssignmentCommand
from dynamicprompts.enums import SamplingMethod
from dynamicprompts.parser.parse import parse
from dynamicprompts.samplers import CombinatorialSampler, RandomSampler
from dynamicprompts.samplers.base import Sampler
from dynamicprompts.sampling_context import SamplingContext
from dynamicprompts.sampling_result import SamplingResult
from dynamicprompts.types import ResultGen
from pyparsing import ParseBaseException

from farm.errors import quoted
from farm.prompts.hiding import hidden, is_dynamic, shown
from farm.prompts.wildcards import BadDynamic, Manager, Wildcards

MOST = 10_000
"""Texts that one text may be multiplied out to."""

# Some texts are searched through for long before anything comes of them: given up after some seconds.
_MOST_STEPS = 2_000_000
_MOST_BARREN_STEPS = 100_000


class DynamicPrompts:
    """Reads dynamic prompts, each text once.

    Args:
        wildcards: that they can use.
    """

    def __init__(self, wildcards: Wildcards) -> None:
        self._wildcards = wildcards
        self._commands: dict[str, Command] = {}
        self._sound: set[str] = set()

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
        sampler = _Bounded()
        context = self._context(SamplingMethod.COMBINATORIAL, sampler, Random(0))
        with _understood(text):
            texts = dict[str, None]()
            for result in _multiplied(command, context):
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
        context = self._context(SamplingMethod.RANDOM, RandomSampler(), Random(seed))
        with _understood(text):
            return shown(next(iter(context.sample_prompts(command))).text)

    def _context(self, method: SamplingMethod, sampler: Sampler, rand: Random) -> SamplingContext:
        weighted = method is SamplingMethod.RANDOM
        return SamplingContext(
            default_sampling_method=method,
            wildcard_manager=Manager(self._wildcards, weighted),
            samplers=dict.fromkeys(SamplingMethod, sampler),
            rand=rand,
        )

    def _checked(self, text: str) -> Command:
        """What a text says, after every wildcard that it can come to use was looked at.

        Raises:
            BadDynamic: if it cannot be read, or a wildcard is not there or leads back to itself.
        """
        if text not in self._commands:
            command = self._read(text)
            self._look_at(command, ())
            self._commands[text] = command
        return self._commands[text]

    def _read(self, text: str) -> Command:
        given = hidden(text)
        try:
            with _understood(text):
                return parse(given)
        except ParseBaseException as error:
            rest = quoted(shown(given[error.loc : error.loc + 40]))
            raise BadDynamic(f"{quoted(text)} cannot be read from {rest} on; is it closed?") from error

    def _look_at(self, command: Command, inside: tuple[str, ...]) -> None:
        if isinstance(command, WildcardCommand) and isinstance(path := command.wildcard, str):
            for name in self._wildcards.matching(shown(path)):
                self._look_into(name, inside)
        for part in _parts(command):
            self._look_at(part, inside)

    def _look_into(self, name: str, inside: tuple[str, ...]) -> None:
        if name in inside:
            raise BadDynamic(f"the wildcard {name!r} leads back to itself: {' → '.join((*inside, name))}")
        if name in self._sound:
            return
        for value in filter(is_dynamic, self._wildcards.values[name]):
            try:
                command = self._read(value)
            except BadDynamic as error:
                raise BadDynamic(f"wildcard {name!r}: {error}") from error
            self._look_at(command, (*inside, name))
        self._sound.add(name)


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


class _Bounded(CombinatorialSampler):
    """Gives up where it would search for too long."""

    def __init__(self) -> None:
        self._steps = 0
        self._barren_since = 0

    def generator_from_command(self, command: Command, context: SamplingContext) -> ResultGen:
        self._steps += 1
        if self._steps > _MOST_STEPS or self._steps - self._barren_since > _MOST_BARREN_STEPS:
            raise BadDynamic("there is too much in it to try out")
        return super().generator_from_command(command, context)

    def _get_variant(self, variant_command: VariantCommand, context: SamplingContext) -> ResultGen:
        """As the library does, which compares each option with each even where only one is taken."""
        if len(variant_command) == 1 or (variant_command.min_bound, variant_command.max_bound) != (1, 1):
            yield from super()._get_variant(variant_command, context)
            return
        seen: set[SamplingResult] = set()
        for value in variant_command.values:
            for result in context.generator_from_command(value):
                if result not in seen:
                    seen.add(result)
                    yield result

    def found(self) -> None:
        """Say that something new came of it."""
        self._barren_since = self._steps


def _multiplied(command: Command, context: SamplingContext) -> Iterator[SamplingResult]:
    """All that a command stands for.

    A variable that is drawn at once, as in ``${v=!{a|b}}``, takes every value in turn; the library would take
    the first one only.
    """
    tokens = command.tokens if isinstance(command, SequenceCommand) else [command]
    for index, token in enumerate(tokens):
        if (
            isinstance(token, VariableAssignmentCommand)
            and token.immediate
            and not isinstance(token.value, LiteralCommand)
        ):
            for value in context.generator_from_command(token.value):
                drawn = replace(token, value=LiteralCommand(value.text))
                yield from _multiplied(
                    SequenceCommand([*tokens[:index], drawn, *tokens[index + 1 :]]), context
                )
            return
    yield from context.generator_from_command(SequenceCommand(tokens))


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
        raise BadDynamic(f"{quoted(text)} cannot be read: {' '.join(str(error).split())[:200]}") from error
