"""Whether what is done to prompts can be done: searches, orders, variants in styles."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from farm.axes import Axis
from farm.document import Mistakes
from farm.entries import Swept
from farm.prompt_sources import AXIS, Sources
from farm.prompts.hiding import is_dynamic
from farm.prompts.order import overlapping
from farm.prompts.styles import Style, around
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
        texts = {text.replace(*pair) for text in texts for pair in pairs} if pairs else texts
    return texts


def _check_order(entry: Swept, texts: Iterable[str], mistakes: Mistakes) -> None:
    parts, texts = entry.axis.values[0].order, sorted(texts)
    for part in parts:
        if texts and not any(part in text for text in texts):
            mistakes.add(entry.place, f"order: {part!r} is not in the prompt")
    if found := next(filter(None, (overlapping(text, parts) for text in texts)), None):
        mistakes.add(entry.place, f"order: {found[0]!r} and {found[1]!r} share a place in the prompt")


def check_styles(sources: Sources, styles: Iterable[Style], axes: Iterable[Axis], mistakes: Mistakes) -> None:
    """Note styles with variants where these become axes: only what stands in the job itself can."""
    used = {*styles, *(style for axis in axes for value in axis.values for style in value.styles)}
    for style in used if sources.dynamic == AXIS else ():
        if is_dynamic(around(style.prompt) + " " + around(style.negative_prompt)):
            what = "has variants, which become no axis; write a style for each, or `dynamic_prompts: choice`"
            mistakes.add(sources.styles_place, f"styles: {style.name!r} {what}")
