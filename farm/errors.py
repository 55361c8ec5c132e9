"""What can go wrong, in words for the person who reads them."""

from collections.abc import Sequence
from dataclasses import dataclass


class FarmError(Exception):
    """Something that stops the command; its message is one clear line."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in somebody's input.

    Attributes:
        where: the place, as ``file:line`` or the name of an option.
        what: the value and what is allowed instead, in one line.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class BadInput(FarmError):
    """Every mistake that was found in the input, all at once (exit status 2)."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CellFailed(FarmError):
    """One cell cannot be rendered; the message is the reason that stands in the index."""
