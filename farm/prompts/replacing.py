"""What is done to prompts before they are encoded: search and replace."""

from collections.abc import Iterable


def replaced(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The text with each searched text replaced wherever it stands, in the order of the pairs.

    A later pair sees what an earlier one put in.

    Args:
        text: a prompt or a negative prompt.
        pairs: of (text searched for, text put in its place).
    """
    for searched, put in pairs:
        text = text.replace(searched, put)
    return text
