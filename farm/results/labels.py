"""What sheets and pages say of their cells' prompts: above them, beside them and under each picture."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter

from farm.axes import Axis, AxisValue
from farm.cell import Cell, SettingValue
from farm.patch_settings import PATCH_DEFAULTS, without_patches
from farm.plan import Plan
from farm.prompts.differing import common, differing
from farm.prompts.hiding import is_dynamic
from farm.prompts.styles import pieces
from farm.results.pages import EMPTY
from farm.settings import PROMPTS

LONGEST = 160
"""Characters of a label on a sheet."""

_ELLIPSIS = "…"
_BETWEEN = " · "
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Labels:
    """The words for some cells of a plan.

    Attributes:
        heading: what their prompts have in common, by the setting's name.
        titles: the labels of each axis' values, by its name.
        captions: by the cell's number, what no label tells of its prompts; for all cells, or for none.
    """

    heading: dict[str, str] = field(default_factory=dict)
    titles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    captions: dict[int, str] = field(default_factory=dict)


def labels(plan: Plan, cells: Collection[Cell], *, longest: int | None = None) -> Labels:
    """The words for these cells: all of their prompts, but nothing twice.

    Labels say what the job asks. Where that does not tell which prompts were used, because cells draw them or
    an axis' value has variants in it, what differs between the prompts goes to the labels of the first axis
    each of whose values has one prompt; without such an axis, it is the cells' captions.

    Args:
        plan: whose axes they are.
        cells: of it, those on one sheet.
        longest: characters of a label; what is longer is cut, unless it were another label then.
    """
    ordered = sorted(cells, key=attrgetter("number"))
    cut = _whole if longest is None else lambda texts: cut_short(texts, longest)
    found = Labels(titles={axis.name: cut([value.title for value in axis.values]) for axis in plan.axes})
    for name in PROMPTS:
        _Prompts(plan.axes, ordered, name, plan.asked).tell(found, cut)
    return found


_Cut = Callable[[Sequence[str]], tuple[str, ...]]


def _whole(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(texts)


class _Prompts:
    """The prompts, or the negative prompts, of some cells."""

    def __init__(
        self, axes: Sequence[Axis], cells: Sequence[Cell], name: str, asked: Mapping[str, SettingValue]
    ) -> None:
        self._axes = axes
        self._cells = cells
        self._name = name
        self._texts = [self._said_by(cell, asked) for cell in cells]
        self._distinct = list(dict.fromkeys(self._texts))

    def _said_by(self, cell: Cell, asked: Mapping[str, SettingValue]) -> str:
        """The text; without LoRA and the like where labels tell of them."""
        text = str(getattr(cell.settings, self._name))
        values = [axis.values[index] for axis, index in zip(self._axes, cell.coordinates)]
        on_axes = {
            name: one for value in values for name, one in value.settings.items() if name in PATCH_DEFAULTS
        }
        if not on_axes:
            return text
        at_top = {name: one for name, one in asked.items() if name in PATCH_DEFAULTS}
        return without_patches(self._name, text, at_top | on_axes)

    def tell(self, found: Labels, cut: _Cut) -> None:
        """Say in `found` what there is to be said."""
        whole = self._on_labels()
        drawn = len(self._distinct) > 1 and not self._told()
        if drawn:
            told = dict(zip(self._distinct, differing(self._distinct, always=True)))
            whole = all(text == title for text, title in told.items())
            prefix = "" if self._name == PROMPTS[0] else "negative: "
            shown = cut([prefix + (title.strip() or EMPTY) for title in told.values()])
            self._add(found, dict(zip(told, shown)))
        if not whole and (drawn or self._empty_is_told()) and (said := self._in_common()):
            found.heading[self._name] = said

    def _add(self, found: Labels, told: Mapping[str, str]) -> None:
        """Put what is told of each text on labels, or under pictures."""
        place = self._deciding()
        if place is None:
            for cell, text in zip(self._cells, self._texts):
                before = found.captions.get(cell.number)
                found.captions[cell.number] = _BETWEEN.join(filter(None, (before, told[text])))
            return
        axis = self._axes[place]
        titles = list(found.titles[axis.name])
        for index, [text] in self._by_value[place].items():
            value = axis.values[index]
            if not {text or EMPTY, told[text]} & {value.title, *self._said(value)}:
                titles[index] = f"{titles[index].strip() or EMPTY}{_BETWEEN}{told[text]}"
        found.titles[axis.name] = tuple(titles)

    def _deciding(self) -> int | None:
        """The first axis each of whose values has one text."""
        single = (all(len(texts) == 1 for texts in by_value.values()) for by_value in self._by_value)
        return next((place for place, decides in enumerate(single) if decides), None)

    def _told(self) -> bool:
        """Whether the axes that say something of prompts say all of it."""
        saying = [place for place, axis in enumerate(self._axes) if any(map(self._says, axis.values))]
        if any(self._drawn(place, index) for place in saying for index in self._by_value[place]):
            return False
        found: dict[tuple[int, ...], str] = {}
        for cell, text in zip(self._cells, self._texts):
            if found.setdefault(tuple(cell.coordinates[place] for place in saying), text) != text:
                return False
        words = {text: set(_WORD.findall(text)) for text in self._distinct}
        shared = set.intersection(*words.values())
        said = {
            (place, index): set(_WORD.findall(" ".join(self._said(self._axes[place].values[index]))))
            for place in saying
            for index in self._by_value[place]
        }
        return all(
            words[text] <= shared.union(*(said[value] for value in zip(saying, at)))
            for at, text in found.items()
        )

    @cached_property
    def _by_value(self) -> list[dict[int, set[str]]]:
        """For each axis, the texts that each of its values has here."""
        found: list[dict[int, set[str]]] = [{} for _ in self._axes]
        for cell, text in zip(self._cells, self._texts):
            for texts, index in zip(found, cell.coordinates):
                texts.setdefault(index, set()).add(text)
        return found

    def _says(self, value: AxisValue) -> bool:
        return self._name in value.settings or bool(value.replaces) or any(self._said(value))

    def _drawn(self, place: int, index: int) -> bool:
        """Whether something was drawn from what an axis' value says."""
        said = self._said(self._axes[place].values[index])
        texts = self._by_value[place][index]
        return any(is_dynamic(part) and not any(part in text for text in texts) for part in said)

    def _said(self, value: AxisValue) -> tuple[str, ...]:
        """The texts that a value puts into prompts."""
        return (
            str(value.settings.get(self._name, "")),
            *(new for _, new in value.replaces),
            *value.order,
            *(part.strip() for style in value.styles for part in pieces(getattr(style, self._name))),
        )

    def _values(self, cell: Cell) -> list[AxisValue]:
        values = [axis.values[index] for axis, index in zip(self._axes, cell.coordinates)]
        return [value for value in values if self._name in value.settings]

    def _on_labels(self) -> bool:
        """Whether the labels have the whole texts, so that no heading needs to say anything."""
        longest = LONGEST if len(self._distinct) == 1 else None
        return all(
            any(text in value.title and text[:longest] == text for value in self._values(cell))
            for cell, text in zip(self._cells, self._texts)
        )

    def _in_common(self) -> str:
        if len(self._distinct) > 1:
            return common(self._distinct)
        return self._distinct[0] or (EMPTY if self._name == PROMPTS[0] else "")

    def _empty_is_told(self) -> bool:
        """Whether labels stand for empty texts among others, so that a heading need not be true of these."""
        return len(self._distinct) == 1 or all(
            text or self._values(cell) for cell, text in zip(self._cells, self._texts)
        )


def cut_short(texts: Sequence[str], longest: int) -> tuple[str, ...]:
    """The texts, each within so many characters: its beginning, or its beginning and its end.

    Texts that would be equal to others then are left whole.
    """
    ways = (lambda text: _beginning(text, longest), lambda text: _ends(text, longest), lambda text: text)
    distinct = set(texts)
    short = {text: ways[0](text) for text in distinct}
    for way in ways[1:]:
        alike = _alike(short)
        short.update({text: way(text) for text in alike})
    if len(set(short.values())) < len(distinct):
        return tuple(texts)
    return tuple(short[text] for text in texts)


def _alike(short: Mapping[str, str]) -> list[str]:
    by_short: dict[str, list[str]] = {}
    for text, told in short.items():
        by_short.setdefault(told, []).append(text)
    return [text for texts in by_short.values() if len(texts) > 1 for text in texts]


def _beginning(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    start = text[: longest - 2]
    whole_words = start[: start.rfind(" ")] if " " in start[longest // 2 :] else start
    return f"{whole_words.rstrip(' ,')} {_ELLIPSIS}"


def _ends(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half].rstrip()} {_ELLIPSIS} {text[-half:].lstrip()}"
