"""A prompt as it was read: an inert tree that prints back to the very text, and what it says at each step.

Nothing here recurses: a text may nest as deeply as it likes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias, Union

Item: TypeAlias = Union[str, "Edit", "Alternation"]
"""Text stands as it was typed, with the brackets, escapes and BREAKs in it: see `farm.prompts.emphasis`."""


STRONGEST = 1e9
"""Weights beyond it, either way, count as this; no picture survives them, but sums and products do."""


def limited(weight: float) -> float:
    """The weight within the limits."""
    return max(-STRONGEST, min(weight, STRONGEST))


@dataclass(frozen=True, slots=True)
class Edit:
    """``[from:to:when]``, ``[to:when]`` or ``[from::when]``: text that changes on the way.

    Attributes:
        before: what stands there until `when`; None in the form with one colon, where nothing does.
        after: what stands there from then on.
        when: the number as typed, with the space around it.
    """

    before: tuple[Item, ...] | None
    after: tuple[Item, ...]
    when: str

    def last(self, steps: int) -> int:
        """The last step that shows `before`; 0 if none does.

        A `when` with a point, or below 1, is a part of all steps. (A1111 before version 1.6 took `1.0` and
        above for steps. Since then, what is above 1 happens in the second pass of a picture that has one.)
        """
        when = float(self.when)
        return int(max(0.0, min(when * steps if when < 1 or "." in self.when else when, steps)))

    def at(self, step: int, steps: int) -> tuple[Item, ...]:
        """What stands there at a step."""
        return (self.before or ()) if step <= self.last(steps) else self.after

    def changes(self, steps: int) -> Iterable[int]:
        """The last step before each change."""
        return (last,) if (last := self.last(steps)) else ()

    @property
    def typed(self) -> tuple[Item, ...]:
        """All that it is made of."""
        first = () if self.before is None else (*self.before, ":")
        return ("[", *first, *self.after, f":{self.when}]")


@dataclass(frozen=True, slots=True)
class Alternation:
    """``[a|b]``: one option after the other, step by step. Options may be empty."""

    options: tuple[tuple[Item, ...], ...]

    def at(self, step: int, steps: int) -> tuple[Item, ...]:
        """What stands there at a step."""
        return self.options[(step - 1) % len(self.options)]

    def changes(self, steps: int) -> Iterable[int]:
        """The last step before each change."""
        return range(1, steps + 1)

    @property
    def typed(self) -> tuple[Item, ...]:
        """All that it is made of."""
        first, *others = self.options
        return ("[", *first, *chain.from_iterable(("|", *option) for option in others), "]")


@dataclass(frozen=True, slots=True)
class Part:
    """What stands between two ANDs.

    Attributes:
        items: texts, edits and alternations in their order.
        ending: the weight as typed, with its colon and the space around it; only that space if there is none.
    """

    items: tuple[Item, ...] = ()
    ending: str = ""

    @property
    def weight(self) -> float:
        """How strongly it pulls."""
        number = self.ending.strip().removeprefix(":")
        return limited(float(number)) if number else 1.0

    def schedule(self, steps: int) -> list[tuple[int, str]]:
        """The texts that follow each other, each with the last step at which it holds.

        As A1111 documents it: steps count from 1, equal texts in a row are not joined, and the last entry
        ends with the last step.

        Args:
            steps: how many there are, from 1.
        """
        ends = sorted({steps}.union(*(node.changes(steps) for node in nodes(self.items))))
        texts = [_text(self.items, lambda node, last=last: node.at(last, steps)) for last in ends]  # type: ignore[misc]
        one_copy = {text: text for text in texts}
        return [(last, one_copy[text]) for last, text in zip(ends, texts, strict=True)]

    def __str__(self) -> str:
        return _text(self.items, lambda node: node.typed) + self.ending


@dataclass(frozen=True, slots=True)
class Tag:
    """``<lora:name:weight>``: something in a prompt that is no text.

    Attributes:
        kind: `lora`, `hypernet` or whatever else stands before the first colon.
        arguments: between the other colons.
        offset: where it stands, counted in the prompt without its tags.
    """

    kind: str
    arguments: tuple[str, ...]
    offset: int

    def __str__(self) -> str:
        return f"<{':'.join((self.kind, *self.arguments))}>"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that was read.

    Attributes:
        parts: that AND joins; at least one.
        tags: in their order.
    """

    parts: tuple[Part, ...]
    tags: tuple[Tag, ...] = ()

    def __str__(self) -> str:
        text = "AND".join(map(str, self.parts))
        ends = [tag.offset for tag in self.tags]
        between = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
        return "".join(chain.from_iterable(zip(between, [*map(str, self.tags), ""], strict=True)))


def nodes(items: Iterable[Item]) -> Iterator[Edit | Alternation]:
    """Every edit and alternation among items, those inside others included."""
    waiting = list(items)
    while waiting:
        item = waiting.pop()
        if not isinstance(item, str):
            yield item
            waiting += item.typed


def _text(items: Sequence[Item], inside: Callable[[Edit | Alternation], Iterable[Item]]) -> str:
    """The texts among items, and of the others what `inside` says."""
    texts: list[str] = []
    waiting = [iter(items)]
    while waiting:
        item = next(waiting[-1], None)
        if item is None:
            waiting.pop()
        elif isinstance(item, str):
            texts.append(item)
        else:
            waiting.append(iter(inside(item)))
    return "".join(texts)
