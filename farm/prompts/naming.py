"""What a prompt names beside words: files of LoRA and hypernetworks in tags, and embeddings in its text."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache

from farm.errors import near_name, quoted
from farm.prompts.grammar import parse
from farm.prompts.oddities import Oddity

Known = Mapping[str, Collection[str]]
"""Names of files by the kind of tag that names them; those of embeddings under `embedding`."""

EMBEDDING = "embedding"


def embeddings(text: str, names: Collection[str]) -> list[tuple[int, int, str]]:
    """Where the names of embeddings stand in a text: start, end, name. As to CLIP, case does not matter."""
    if not names:
        return []
    pattern, by_folded = _searched(tuple(names))
    return [(*match.span(), by_folded.get(match[0].casefold(), match[0])) for match in pattern.finditer(text)]


def untagged(prompt: str) -> str:
    """A prompt with a space where each of its tags was."""
    text, start = prompt, 0
    for tag in parse(prompt).tags:
        start = text.index(str(tag), start)
        text = f"{text[:start]} {text[start + len(str(tag)) :]}"
    return text


@lru_cache(16)
def _searched(names: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """What finds names, and how each is written."""
    by_folded = {name.casefold(): name for name in names}
    longest_first = sorted(by_folded, key=len, reverse=True)
    alternatives = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE), by_folded


def unapplied(text: str, known: Known, negative: bool = False) -> list[Oddity]:
    """The tags of a prompt that do nothing, and why."""
    return [] if negative else list(_of_tags(text, known))


def _of_tags(text: str, known: Known) -> Iterator[Oddity]:
    start = 0
    for tag in parse(text).tags:
        start = text.index(str(tag), start)
        if why := _why(tag.kind, tag.arguments[0].strip(), known):
            yield Oddity(start, start + len(str(tag)), why)
        start += len(str(tag))


def _why(kind: str, name: str, known: Known) -> str:
    kinds = [other for other in known if other != EMBEDDING]
    if kind not in kinds:
        return f"{quoted(kind)} is no kind of tag, and left out; there are {', '.join(kinds)}"
    if name.casefold() in map(str.casefold, known[kind]):
        return ""
    near = near_name(name, known[kind])
    hint = f"; did you mean {near!r}?" if near else ""
    return f"there is no {kind} {quoted(name)}: the picture is as without it{hint}"
