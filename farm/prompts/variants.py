"""How the library dynamicprompts goes through variants, mended: all of them, or one that is drawn.

Values of wildcards in which nothing is dynamic are not parsed; a wildcard's name may have variants itself;
the same word is not taken twice; and what would take for ever is given up.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from dynamicprompts.commands import (
    Command,
    LiteralCommand,
    SequenceCommand,
    VariantCommand,
    WildcardCommand,
)
from dynamicprompts.commands.variable_commands import VariableAssignmentCommand
from dynamicprompts.commands.variant_command import VariantOption
from dynamicprompts.parser.parse import parse
from dynamicprompts.samplers import CombinatorialSampler, RandomSampler
from dynamicprompts.sampling_context import SamplingContext
from dynamicprompts.sampling_result import SamplingResult
from dynamicprompts.types import ResultGen
from dynamicprompts.wildcards.item import WildcardItem
from pyparsing import ParseBaseException

from farm.errors import quoted
from farm.prompts.hiding import is_dynamic, shown
from farm.prompts.wildcards import BadDynamic

# Some texts are searched through for long before anything comes of them: given up after some seconds.
_MOST_STEPS = 2_000_000
_MOST_BARREN_STEPS = 100_000
_MOST_DRAWING_STEPS = 300_000


class Values:
    """Reads the values of wildcards, each once."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}

    def command(self, value: str) -> Command:
        """What a value says; one in which nothing is dynamic says itself.

        Raises:
            BadDynamic: if it cannot be read.
        """
        if value not in self._commands:
            try:
                self._commands[value] = parse(value) if is_dynamic(value) else LiteralCommand(value)
            except ParseBaseException as error:
                what = "a value of a wildcard, cannot be read; is it closed?"
                raise BadDynamic(f"{quoted(shown(value))}, {what}") from error
        return self._commands[value]

    def options(self, path: str, context: SamplingContext) -> list[VariantOption]:
        """The values of a wildcard, with their weights."""
        items = context.wildcard_manager.get_values(path).items
        return [VariantOption(self.command(str(item)), _weight(item)) for item in items]


def _weight(item: str | WildcardItem) -> float:
    return float(item.weight) if isinstance(item, WildcardItem) else 1.0


def _paths(command: WildcardCommand, context: SamplingContext) -> Iterator[str]:
    """The names that a wildcard's name stands for."""
    if isinstance(command.wildcard, str):
        yield command.wildcard
    else:
        texts = (result.text for result in context.generator_from_command(command.wildcard))
        seen: set[str] = set()
        for text in texts:
            if text not in seen:
                seen.add(text)
                yield text


def _lone_wildcard(command: VariantCommand) -> WildcardCommand | None:
    """The wildcard that stands alone between braces, as in ``{2$$__animal__}``."""
    only = command.values[0] if len(command) == 1 else None
    return only if isinstance(only, WildcardCommand) else None


def _merged(command: VariantCommand) -> VariantCommand:
    """Without words that stand there again; their weights are added."""
    if command.max_bound < 2:
        return command
    options: list[VariantOption] = []
    where: dict[str, int] = {}
    for option in command.variants:
        word = option.value.literal.strip() if isinstance(option.value, LiteralCommand) else None
        if word is not None and word in where:
            old = options[where[word]]
            options[where[word]] = replace(old, weight=old.weight + option.weight)
            continue
        if word is not None:
            where[word] = len(options)
        options.append(option)
    return command if len(options) == len(command) else replace(command, variants=options)


class Multiplying(CombinatorialSampler):
    """All variants; gives up where it would search for too long.

    Args:
        values: reads those of wildcards.
    """

    def __init__(self, values: Values) -> None:
        self._steps = 0
        self._barren_since = 0
        self._values = values

    def generator_from_command(self, command: Command, context: SamplingContext) -> ResultGen:
        """As the library does, but not for ever.

        Raises:
            BadDynamic: where too much is tried out.
        """
        self._steps += 1
        if self._steps > _MOST_STEPS or self._steps - self._barren_since > _MOST_BARREN_STEPS:
            raise BadDynamic("there is too much in it to try out")
        return super().generator_from_command(command, context)

    def _get_variant(self, variant_command: VariantCommand, context: SamplingContext) -> ResultGen:
        """As the library does, which compares each option with each even where only one is taken."""
        if wildcard := _lone_wildcard(variant_command):
            inner = context.with_variables(wildcard.variables)
            for path in _paths(wildcard, context):
                options = self._values.options(path, context)
                yield from self._some(replace(variant_command, variants=options), inner)
        else:
            yield from self._some(_merged(variant_command), context)

    def _some(self, command: VariantCommand, context: SamplingContext) -> ResultGen:
        command = command.adjust_range()
        if len(command) > 1 and (command.min_bound, command.max_bound) != (1, 1):
            yield from super()._get_variant(command, context)
            return
        seen: set[SamplingResult] = set()
        if command.min_bound < 1:
            seen.add(nothing := SamplingResult(text=""))
            yield nothing
        for value in command.values if command.max_bound else []:
            for result in context.generator_from_command(value):
                if result not in seen:
                    seen.add(result)
                    yield result

    def _get_wildcard(self, command: WildcardCommand, context: SamplingContext) -> ResultGen:
        """As the library does, which looks at the first only of the names that a name stands for."""
        inner = context.with_variables(command.variables)
        for path in _paths(command, context):
            for option in self._values.options(path, context):
                yield from inner.generator_from_command(option.value)

    def found(self) -> None:
        """Say that something new came of it."""
        self._barren_since = self._steps


class Drawing(RandomSampler):
    """One variant, drawn by weight; gives up where too much comes of it.

    Args:
        values: reads those of wildcards.
    """

    def __init__(self, values: Values) -> None:
        self._steps = 0
        self._values = values

    def generator_from_command(self, command: Command, context: SamplingContext) -> ResultGen:
        """As the library does, but not for ever.

        Raises:
            BadDynamic: where too much comes of it.
        """
        self._steps += 1
        if self._steps > _MOST_DRAWING_STEPS:
            raise BadDynamic("there is too much in it")
        return super().generator_from_command(command, context)

    def _get_variant(self, command: VariantCommand, context: SamplingContext) -> ResultGen:
        """As the library does, which repeats the values of a wildcard that have a weight."""
        if wildcard := _lone_wildcard(command):
            path = next(_paths(wildcard, context))
            options = [option for option in self._values.options(path, context) if option.weight > 0]
            command = replace(command, variants=options)
            context = context.with_variables(wildcard.variables)
            if len(options) == 1 and command.max_bound > 0:
                yield from context.generator_from_command(options[0].value)
                return
        yield from super()._get_variant(_merged(command), context)

    def _get_wildcard(self, command: WildcardCommand, context: SamplingContext) -> ResultGen:
        path = next(_paths(command, context))
        context = context.with_variables(command.variables)
        values = context.wildcard_manager.get_values(path)
        for value in self._get_wildcard_choice_generator(context, values):
            yield from islice(context.generator_from_command(self._values.command(value)), 1)


def multiplied(command: Command, context: SamplingContext) -> Iterator[SamplingResult]:
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
                yield from multiplied(
                    SequenceCommand([*tokens[:index], drawn, *tokens[index + 1 :]]), context
                )
            return
    yield from context.generator_from_command(SequenceCommand(tokens))
