"""What can go wrong, in words for the person who reads them."""

import difflib
from collections.abc import Iterable, Sequence
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


def quoted(text: str) -> str:
    """The text between quotes, in one line and not too long for a message."""
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:76]}…{shown[0]}"


def near_name(wanted: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: one like it, or else one that begins or ends so."""
    by_folded = {name.casefold(): name for name in reversed(list(known))}  # the first of them counts
    folded = wanted[:100].casefold()
    longer = [name for name in by_folded if len(folded) > 2 and _begins_or_ends(name, folded)]
    close = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    close = close or difflib.get_close_matches(folded, longer, n=1, cutoff=0)
    return by_folded[close[0]] if close else None


def _begins_or_ends(name: str, part: str) -> bool:
    return name.startswith(part) or name.endswith(part)


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
