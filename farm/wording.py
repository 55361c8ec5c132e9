"""The prompts of a combination: what is made of the texts that a job says."""

from collections.abc import Sequence
from typing import Any

from farm.axes import AxisValue
from farm.job import Job
from farm.prompts.dynamic import DynamicPrompts
from farm.prompts.order import overlapping, reordered
from farm.prompts.replacing import replaced
from farm.prompts.styles import styled
from farm.prompts.wildcards import BadDynamic
from farm.settings import PROMPTS


class BadWording(ValueError):
    """A prompt that cannot be made.

    Attributes:
        setting: whose text it is.
    """

    def __init__(self, setting: str, what: str) -> None:
        super().__init__(what)
        self.setting = setting


class Wording:
    """Makes prompts as A1111 does: first replaced, then put in order, then styled, then drawn.

    Args:
        job: whose prompts they are.
    """

    def __init__(self, job: Job) -> None:
        self._styles = job.styles
        self._dynamic = DynamicPrompts(job.wildcards) if job.wildcards else None
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
        for name in PROMPTS:
            text = replaced(chosen[name], pairs)
            for parts in orders if name == "prompt" else ():
                if found := overlapping(text, parts):
                    raise BadWording(name, f"order: {found[0]!r} and {found[1]!r} share a place in {text!r}")
                text = reordered(text, parts)
            text = styled(text, [getattr(style, name) for style in styles])
            if self._dynamic:
                text = self._choice(self._dynamic, name, text, chosen["seed"])
            chosen[name] = self._texts.setdefault(text, text)  # one copy of each

    def _choice(self, dynamic: DynamicPrompts, name: str, text: str, seed: int) -> str:
        asked = (name, text, seed)
        if asked not in self._drawn:
            try:
                self._drawn[asked] = dynamic.choice(text, f"{name} {seed}")
            except BadDynamic as error:
                raise BadWording(name, str(error)) from error
        return self._drawn[asked]
