"""What is done to prompts before they are encoded: search and replace."""

from collections.abc import Iterable


class TooLong(ValueError):
    """A text that becomes too long."""


def replaced(text: str, pairs: Iterable[tuple[str, str]], most: int | None = None) -> str:
    """The text with each searched text replaced wherever it stands, in the order of the pairs.

    A later pair sees what an earlier one put in.

    Args:
        text: a prompt or a negative prompt.
        pairs: of (text searched for, text put in its place).
        most: characters that may come of it.

    Raises:
        TooLong: if more would.
    """
    for searched, put in pairs:
        if most is not None and len(text) + text.count(searched) * (len(put) - len(searched)) > most:
            raise TooLong
        text = text.replace(searched, put)
    return text
