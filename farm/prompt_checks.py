"""Whether what is done to prompts can be done: searches, orders, variants in styles."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from farm.axes import Axis
from farm.document import Mistakes, Table, Text
from farm.entries import Swept, listed
from farm.errors import near_name
from farm.kinds import MAX_PROMPT_BYTES
from farm.prompt_sources import AXIS, CHOICE, Sources
from farm.prompts.dynamic import DynamicPrompts
from farm.prompts.hiding import is_dynamic
from farm.prompts.order import overlapping
from farm.prompts.replacing import TooLong, replaced
from farm.prompts.styles import Style, around
from farm.prompts.wildcards import BadDynamic
from farm.settings import PROMPTS

_MOST_TEXTS = 10_000


def check_texts(swept: Sequence[Swept], base: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Note what is searched for, or put in order, but stands in no prompt that any combination can have."""
    if any(entry.axis.name in PROMPTS and not entry.axis.values for entry in swept):
        return  # nobody knows what prompts there are
    prompts = list(_prompts(swept, base, PROMPTS))
    for entry, axis in ((entry, entry.axis) for entry in swept):
        for searched in dict.fromkeys(pair[0] for value in axis.values for pair in value.replaces):
            if not any(searched in prompt for prompt in prompts):
                what = f"replace: {searched!r} is in neither the prompt nor the negative prompt"
                mistakes.add(entry.place, what)
        prompts += [pair[1] for value in axis.values for pair in value.replaces]
        if axis.values and axis.values[0].order:
            _check_order(entry, _replaced(_prompts(swept, base, PROMPTS[:1]), swept), mistakes)


def _prompts(swept: Iterable[Swept], base: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    yield from (str(base.get(name, "")) for name in names)
    values = [value for entry in swept for value in entry.axis.values]
    yield from (str(value.settings[name]) for value in values for name in names if name in value.settings)


def _replaced(prompts: Iterable[str], swept: Iterable[Swept]) -> set[str]:
    """The prompts after search-and-replace, in every combination; none if there are too many to look at."""
    texts = set(prompts)
    for entry in swept:
        pairs = {pair for value in entry.axis.values for pair in value.replaces}
        if len(texts) * len(pairs) > _MOST_TEXTS:
            return set()
        if not pairs:
            continue
        try:
            texts = {replaced(text, [pair], MAX_PROMPT_BYTES) for text in texts for pair in pairs}
        except TooLong:
            return set()
    return texts


def _check_order(entry: Swept, texts: Iterable[str], mistakes: Mistakes) -> None:
    parts, texts = entry.axis.values[0].order, sorted(texts)
    for part in parts:
        if texts and not any(part in text for text in texts):
            mistakes.add(entry.place, f"order: {part!r} is not in the prompt")
    if found := next(filter(None, (overlapping(text, parts) for text in texts)), None):
        mistakes.add(entry.place, f"order: {found[0]!r} and {found[1]!r} share a place in the prompt")


def check_choices(tree: Table, sources: Sources, axes: Iterable[Axis], mistakes: Mistakes) -> None:
    """Note texts from which cells cannot draw, each at its place; cells tell of what `replace` puts in."""
    if sources.dynamic != CHOICE:
        return
    dynamic = DynamicPrompts(sources.wildcards)
    searched = {pair[0] for axis in axes for value in axis.values for pair in value.replaces}
    for name, text in _written_prompts(tree):
        if any(part in text for part in searched):
            continue
        try:
            dynamic.check(text)
        except BadDynamic as error:
            for what in error.faults:
                mistakes.add(text.place, f"{name}: {what}")


def _written_prompts(tree: Table) -> Iterator[tuple[str, Text]]:
    """The texts of prompts in a job, at its top and under sweep, with the settings that they are of."""
    for key, written in tree.items():
        for entry in listed(written):
            if key in PROMPTS and isinstance(entry, Text):
                yield str(key), entry
            elif isinstance(entry, Table) and key not in _WITHOUT_PROMPTS:
                yield from _written_prompts(entry)


_WITHOUT_PROMPTS = ("define_styles", "define_wildcards", "replace", "skip")


def check_styles(sources: Sources, styles: Iterable[Style], axes: Iterable[Axis], mistakes: Mistakes) -> None:
    """Note styles with variants where these become axes, as only what stands in the job can; and odd ones."""
    used = {*styles, *(style for axis in axes for value in axis.values for style in value.styles)}
    for style in used:
        text = f"{style.prompt} {style.negative_prompt}"
        if sources.dynamic == AXIS and is_dynamic(around(text)):
            what = "has variants, which become no axis; write a style for each, or `dynamic_prompts: choice`"
            mistakes.add(sources.styles_place, f"styles: {style.name!r} {what}")
        for word in dict.fromkeys(re.findall(r"\{(\w+)\}", around(text))):
            if near_name(word, ["prompt"]):
                what = f"has {{{word}}} in it, which is left as it is; did you mean {{prompt}}?"
                mistakes.warn(sources.styles_place, f"styles: {style.name!r} {what}")
    names = {style.name for style in used} - set(sources.defined)
    for place, name, what in sources.oddities:
        if name in names:
            mistakes.warn(place, f"styles: {name!r} {what}")
