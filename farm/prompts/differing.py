"""Titles for prompts that are much alike: only what differs."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import and_
from os.path import commonprefix

LONG = 32
"""Characters; where every text is shorter, it is its own title."""

_TOKEN = re.compile(r",|[^\s,]+")
_ELLIPSIS = "…"


def differing(texts: Sequence[str]) -> list[str]:
    """A title for each text, without the words that stand in all of them.

    What is left out between two words is shown as an ellipsis. A text whose title would be empty, or that of
    another text, is its own title.

    Args:
        texts: prompts; equal ones get equal titles.
    """
    distinct = list(dict.fromkeys(texts))
    if len(distinct) < 2 or max(map(len, distinct)) <= LONG:
        return list(texts)
    short = dict(zip(distinct, _shortened(distinct), strict=True))
    counts = Counter(short.values())
    titles = {text: title if title and counts[title] == 1 else text for text, title in short.items()}
    if len(set(titles.values())) < len(titles):  # a title that is another text
        return list(texts)
    return [titles[text] for text in texts]


def common(texts: Sequence[str]) -> str:
    """What stands in all the texts, as it stands in the first of them, with ellipses where they differ."""
    words = [_TOKEN.findall(text) for text in texts]
    start, end = _ends(words)
    middles = [each[start : len(each) - end] for each in words]
    left = reduce(and_, map(Counter, middles))
    told = words[0][:start]
    for word in middles[0] if any(middles) else ():
        if left[word] > 0:
            left[word] -= 1
            told.append(word)
        elif told[-1:] != [_ELLIPSIS]:
            told.append(_ELLIPSIS)
    told += [_ELLIPSIS] if any(middles) and not middles[0] else []
    return _joined([*told, *words[0][len(words[0]) - end :]])


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
