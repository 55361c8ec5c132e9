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


def _shortened(texts: Iterable[str]) -> list[str]:
    words = [_TOKEN.findall(text) for text in texts]
    start = len(commonprefix(words))
    rests = [each[start:] for each in words]
    end = len(commonprefix([each[::-1] for each in rests]))
    middles = [each[: len(each) - end] for each in rests]
    common = reduce(and_, map(Counter, middles))
    return [_told(middle, common) for middle in middles]


def _told(words: Iterable[str], common: Counter[str]) -> str:
    """The words that are not common, where they stand; commas only between two of them."""
    left = Counter(common)
    told: list[str] = []
    gap = False
    for word in words:
        if left[word] > 0 or word == ",":
            gap = gap or word != ","
            left[word] -= 1
            told += [","] if word == "," and told and told[-1] not in (",", _ELLIPSIS) and not gap else []
            continue
        if gap and told:
            told = [*_without_comma(told), _ELLIPSIS]
        told.append(word)
        gap = False
    return " ".join(_without_comma(told)).replace(" ,", ",")


def _without_comma(words: list[str]) -> list[str]:
    return words[:-1] if words and words[-1] == "," else words
