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


LONGEST_FOREIGN = 1000
"""Characters that are shown of a library's message: some list every tensor of a checkpoint."""


def described(error: BaseException) -> str:
    """An exception in one line: the message of one of ours, and the type and message of any other."""
    message = " ".join(str(error).split())
    if isinstance(error, FarmError) and message:
        return message
    if len(message) > LONGEST_FOREIGN:
        message = f"{message[:LONGEST_FOREIGN]}…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
