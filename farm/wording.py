"""The prompts of a combination: what is made of the texts that a job says."""

from collections.abc import Iterable, Sequence
from typing import Any

from farm.axes import AxisValue
from farm.job import Job
from farm.kinds import MAX_PROMPT_BYTES
from farm.prompts.dynamic import DynamicPrompts
from farm.prompts.order import overlapping, reordered
from farm.prompts.replacing import TooLong, replaced
from farm.prompts.styles import styled
from farm.prompts.wildcards import BadDynamic
from farm.settings import PROMPTS


class BadWording(ValueError):
    """Prompts that cannot be made.

    Attributes:
        faults: pairs of the setting whose text it is, and what is wrong with it.
    """

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(what for _, what in faults))
        self.faults = tuple(faults)


class Wording:
    """Makes prompts as A1111 does: first replaced, then put in order, then styled, then drawn.

    Args:
        job: whose prompts they are.

    Attributes:
        lacking: parts that were to be put in order but are not in a prompt, each with the first such prompt.
    """

    def __init__(self, job: Job) -> None:
        self._styles = job.styles
        self._dynamic = DynamicPrompts(job.wildcards) if job.wildcards else None
        self.lacking: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._drawn: dict[tuple[str, str, int], str] = {}

    def word(self, chosen: dict[str, Any], values: Sequence[AxisValue]) -> None:
        """Put the prompts of a combination in place of the texts that it has.

        Args:
            chosen: its settings by name; they are changed.
            values: its value on each axis.

        Raises:
            BadWording: if they cannot be made.
        """
        pairs = [pair for value in values for pair in value.replaces]
        orders = [value.order for value in values if value.order]
        styles = [*self._styles, *(style for value in values for style in value.styles)]
        if not (pairs or orders or styles or self._dynamic):
            return
        faults: list[tuple[str, str]] = []
        for name in PROMPTS:
            texts = [getattr(style, name) for style in styles]
            try:
                text = self._worded(name, chosen[name], pairs, orders if name == "prompt" else [], texts)
                text = self._choice(name, text, chosen["seed"])
            except _Unspeakable as error:
                faults += [(name, what) for what in error.args]
            else:
                chosen[name] = self._texts.setdefault(text, text)  # one copy of each
        if faults:
            raise BadWording(faults)

    def _worded(
        self,
        name: str,
        text: str,
        pairs: Sequence[tuple[str, str]],
        orders: Iterable[Sequence[str]],
        styles: Sequence[str],
    ) -> str:
        try:
            text = replaced(text, pairs, MAX_PROMPT_BYTES)
            for parts in orders:
                text = self._ordered(text, parts)
            text = styled(text, styles, MAX_PROMPT_BYTES)
        except TooLong as error:
            raise _Unspeakable(_TOO_LONG) from error
        return _of_allowed_length(text)

    def _ordered(self, text: str, parts: Sequence[str]) -> str:
        if found := overlapping(text, parts):
            raise _Unspeakable(f"order: {found[0]!r} and {found[1]!r} share a place in {text!r}")
        for part in parts:
            if part not in text:
                self.lacking.setdefault(part, text)
        return reordered(text, parts)

    def _choice(self, name: str, text: str, seed: int) -> str:
        if self._dynamic is None:
            return text
        asked = (name, text, seed)
        if asked not in self._drawn:
            try:
                drawn = self._dynamic.choice(text, f"{name} {seed}")
            except BadDynamic as error:
                raise _Unspeakable(*error.faults) from error
            self._drawn[asked] = _of_allowed_length(drawn)
        return self._drawn[asked]


def _of_allowed_length(text: str) -> str:
    if len(text) > MAX_PROMPT_BYTES or len(text.encode(errors="replace")) > MAX_PROMPT_BYTES:
        raise _Unspeakable(_TOO_LONG)
    return text


class _Unspeakable(ValueError):
    """What is wrong with one text, each in words."""


_TOO_LONG = f"with all that is put into it, it has more than {MAX_PROMPT_BYTES} bytes, which are too many"
