"""How numbers of things are said."""

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """So many of them: `1 cell`, `2 cells`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(words: Sequence[str], most: int) -> str:
    """The first of them, and how many there are if these are not all."""
    if len(words) <= most:
        return ", ".join(words)
    return f"{', '.join(words[:most])}, … {len(words)} in all"
