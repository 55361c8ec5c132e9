"""Titles for prompts that are much alike: only what differs."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import and_
from os.path import commonprefix

LONG = 36
"""Characters; where every text is as short as that, it is its own title."""

_WORTH = 0.75
"""Of the texts' length: titles that are longer than that, all together, are not worth it."""

_TOKEN = re.compile(r",|[^\s,]+")
_ELLIPSIS = "…"


def differing(texts: Sequence[str], *, always: bool = False) -> list[str]:
    """A title for each text, without the words that stand in all of them.

    What is left out between two words is shown as an ellipsis. A text whose title would be empty, or that of
    another text, is its own title; so are all of them where they are short, or have little in common. An
    empty text is not compared with the others, and stays empty.

    Args:
        texts: prompts; equal ones get equal titles.
        always: whether short texts are shortened too, and those that have little in common.
    """
    compared = _compared(texts)
    if len(compared) < 2 or (max(map(len, compared)) <= LONG and not always):
        return list(texts)
    short = dict(zip(compared, _shortened(compared), strict=True))
    counts = Counter(short.values())
    titles = {text: title if title and counts[title] == 1 else text for text, title in short.items()}
    if len(set(titles.values())) < len(titles):  # a title that is another text
        return list(texts)
    if not always and _length(titles.values()) > _WORTH * _length(titles):
        return list(texts)
    return [titles.get(text, text) for text in texts]


def common(texts: Iterable[str]) -> str:
    """What stands in all the texts, with ellipses where they differ; nothing if they share nothing.

    It stands there as in the first of those with the most words. Empty texts do not count.
    """
    words = [_TOKEN.findall(text) for text in _compared(texts)] or [[]]
    start, end = _ends(words)
    middles = [each[start : len(each) - end] for each in words]
    left = reduce(and_, map(Counter, middles))
    longest = max(words, key=len)
    told = longest[:start]
    for word in longest[start : len(longest) - end]:
        if left[word] > 0:
            left[word] -= 1
            told.append(word)
        else:
            _leave_out(told)
    ending = longest[len(longest) - end :]
    if told[-1:] == [_ELLIPSIS] and ending == [","]:
        ending = []
    told += ending
    return _joined(told) if set(told) - {_ELLIPSIS, ","} else ""


def _leave_out(told: list[str]) -> None:
    """Put an ellipsis behind `told`: one for all that is left out in one place, whatever commas are in it."""
    if told[-2:] == [_ELLIPSIS, ","]:
        told.pop()
    elif told[-1:] != [_ELLIPSIS]:
        told.append(_ELLIPSIS)


def _compared(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text.strip()]


def _length(texts: Iterable[str]) -> int:
    return sum(map(len, texts))


def _shortened(texts: Iterable[str]) -> list[str]:
    words = [_TOKEN.findall(text) for text in texts]
    start, end = _ends(words)
    middles = [each[start : len(each) - end] for each in words]
    shared = reduce(and_, map(Counter, middles))
    return [_told(middle, shared) for middle in middles]


def _ends(words: list[list[str]]) -> tuple[int, int]:
    """With how many words all begin, and with how many more all end."""
    start = len(commonprefix(words))
    return start, len(commonprefix([each[start:][::-1] for each in words]))


def _told(words: Iterable[str], shared: Counter[str]) -> str:
    """The words that are not shared, where they stand; commas only between two of them."""
    left = Counter(shared)
    told: list[str] = []
    gap = False
    for word in words:
        if word != "," and left[word] > 0:
            left[word] -= 1
            gap = True
        elif word != ",":
            if gap and told:
                told = [*_without_comma(told), _ELLIPSIS]
            told.append(word)
            gap = False
        elif told and told[-1] != "," and not gap:
            told.append(word)
    return _joined(_without_comma(told))


def _without_comma(words: list[str]) -> list[str]:
    return words[:-1] if words and words[-1] == "," else words


def _joined(words: Iterable[str]) -> str:
    return " ".join(words).replace(" ,", ",")
