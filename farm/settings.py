"""What may be written for each setting of a job: its kind, its range, and how a text becomes a value."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import SystemRandom
from typing import Any

from farm.axes import MAX_VALUES, BadValue, expand_item, number_label, quoted, split_names, split_numbers
from farm.cell import Scalar
from farm.document import Items, Mistakes, Text, Written
from farm.sampling import SAMPLERS

MAX_PROMPT_BYTES = 100_000
MAX_SEED = 2**63 - 1
_DRAWN_BELOW = 2**32  # as A1111 draws them

Names = Mapping[str, tuple[str, ...]]
"""Canonical names, each with the other names it answers to."""

Value = tuple[str, Scalar]
"""A setting's value, and before it the title that labels show."""


class Seeds:
    """The random seeds of a job: drawn once, read back ever after."""

    def __init__(self, drawn: Iterable[int] = ()) -> None:
        self._all = list(drawn)
        self._used = 0

    @property
    def drawn(self) -> tuple[int, ...]:
        """All of them in order, those of before included."""
        return tuple(self._all)

    def draw(self) -> int:
        """The next seed: one of before, or a new one."""
        if self._used == len(self._all):
            self._all.append(SystemRandom().randrange(_DRAWN_BELOW))
        self._used += 1
        return self._all[self._used - 1]


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a job takes along.

    Attributes:
        models: that there are.
        seeds: where random seeds come from.
        mistakes: takes what is wrong.
    """

    models: Names
    seeds: Seeds
    mistakes: Mistakes


@dataclass(frozen=True, slots=True)
class Number:
    """A setting that is a number; several are written in the grammar of `farm.axes`.

    Attributes:
        about: what it is, for editors.
        lowest: allowed.
        highest: allowed.
        whole: whether it has no fraction.
        multiple: of which a whole number must be.
        random: whether `random` and -1 stand for a number to be drawn.
    """

    about: str
    lowest: int
    highest: int
    whole: bool = True
    multiple: int = 1
    random: bool = False

    @property
    def allowed(self) -> str:
        """In words."""
        kind = "a number" if not self.whole else "a whole number"
        if self.multiple != 1:
            kind = f"a multiple of {self.multiple}"
        return f"{kind} from {self.lowest} to {self.highest}{', or random' if self.random else ''}"

    def split(self, text: str, models: Names) -> list[str]:
        """The items of a text.

        Raises:
            BadValue: if there is nothing in it.
        """
        if not text.strip():
            raise BadValue(f"no value is given; {self.allowed}")
        return split_numbers(text)

    def expand(self, items: Sequence[str], position: int, reading: Reading) -> list[Value]:
        """The values that one item of a list stands for.

        Raises:
            BadValue: if it is not allowed.
        """
        if self.random and items[position].casefold() in ("random", "-1"):
            seed = reading.seeds.draw()
            return [(str(seed), seed)]
        try:
            numbers = expand_item(items, position, truncate=self.whole)
        except BadValue as mistake:
            raise BadValue(f"{mistake}; {self.allowed}") from mistake
        return [self._value(number) for number in numbers]

    def _value(self, number: Fraction) -> Value:
        label = number_label(number)
        if not self.lowest <= number <= self.highest or (self.whole and number % self.multiple):
            raise BadValue(f"{label} is not allowed; {self.allowed}")
        return label, int(number) if self.whole else float(number)

    def schema(self) -> dict[str, Any]:
        """JSON Schema of one value."""
        number: dict[str, Any] = {"type": "integer" if self.whole else "number"}
        number |= {"minimum": self.lowest, "maximum": self.highest}
        if self.multiple != 1:
            number["multipleOf"] = self.multiple
        return {"anyOf": [number, {"enum": ["random", -1]}]} if self.random else number


@dataclass(frozen=True, slots=True)
class Name:
    """A setting that is one of a few names; several are separated by commas, and `all` is all of them.

    Attributes:
        about: what it is, for editors.
        hint: where the names are found, for messages.
        known: gives the names, from those of the models.
    """

    about: str
    hint: str
    known: Callable[[Names], Names]

    def split(self, text: str, models: Names) -> list[str]:
        """The items of a text; a known name stays whole, commas or not.

        Raises:
            BadValue: if there is nothing in it, or quotes are not closed.
        """
        if not text.strip():
            raise BadValue(f"no value is given ({self.hint})")
        return [text] if _matching(text, self.known(models)) else split_names(text)

    def expand(self, items: Sequence[str], position: int, reading: Reading) -> list[Value]:
        """The values that one item of a list stands for.

        Raises:
            BadValue: if it is not allowed.
        """
        known, wanted = self.known(reading.models), items[position]
        if wanted.casefold() == "all" and known:
            return [(name, name) for name in known]
        found = _matching(wanted, known)
        if len(found) == 1:
            return [(found[0], found[0])]
        if found:
            raise BadValue(f"{quoted(wanted)} may be any of {', '.join(map(repr, found))}")
        raise BadValue(f"{quoted(wanted)} is not known{nearest(wanted, _all_names(known))} ({self.hint})")

    def schema(self) -> dict[str, Any]:
        """JSON Schema of one value: names are proposed, but other spellings pass."""
        names = list(self.known({}))
        return {"anyOf": [{"enum": names}, {"type": "string"}]} if names else {"type": "string"}


@dataclass(frozen=True, slots=True)
class Prose:
    """A setting that is any text. It is never split: several are written as a list.

    Attributes:
        about: what it is, for editors.
    """

    about: str

    def split(self, text: str, models: Names) -> list[str]:
        """The text itself."""
        return [text]

    def expand(self, items: Sequence[str], position: int, reading: Reading) -> list[Value]:
        """The text without the space around it.

        Raises:
            BadValue: if it is too long or no text at all.
        """
        text = items[position].strip()
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise BadValue(f"{quoted(text)} is not a valid text") from error
        if size > MAX_PROMPT_BYTES:
            raise BadValue(f"a text of {size} bytes is not allowed; at most {MAX_PROMPT_BYTES}")
        return [(text, text)]

    def schema(self) -> dict[str, Any]:
        """JSON Schema of one value."""
        return {"type": "string"}


Setting = Number | Name | Prose


def nearest(wanted: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing if no known name is near."""
    by_folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(wanted[:100].casefold(), by_folded, n=1, cutoff=0.6)
    return f"; did you mean {by_folded[close[0]]!r}?" if close else ""


def _matching(wanted: str, known: Names) -> list[str]:
    """The canonical names that a name may mean: one spelled exactly so comes first."""
    if wanted in known:
        return [str(wanted)]
    exact = [name for name, others in known.items() if wanted in others]
    folded = wanted.casefold()
    return exact or [name for name, others in known.items() if folded in map(str.casefold, (name, *others))]


def _all_names(known: Names) -> list[str]:
    return [spelling for name, others in known.items() for spelling in (name, *others)]


def _models(models: Names) -> Names:
    return models


def _samplers(_: Names) -> Names:
    return {row.name: row.aliases for row in SAMPLERS}


def _precisions(_: Names) -> Names:
    return {"auto": (), "fp32": ("float32",), "fp16": ("float16", "half"), "bf16": ("bfloat16",)}


SETTINGS: Mapping[str, Setting] = {
    "model": Name("A checkpoint under models/: name, file stem or hash.", "farm models lists them", _models),
    "prompt": Prose("What the picture shows."),
    "negative_prompt": Prose("What it should not show."),
    "sampler": Name("Name of a sampler, as A1111 writes it.", "farm samplers lists them", _samplers),
    "steps": Number("Sampling steps.", 1, 1000),
    "cfg_scale": Number("How strictly the prompt is followed; 1 switches guidance off.", 0, 100, whole=False),
    "seed": Number("Of the noise a picture starts from; random is drawn once.", 0, MAX_SEED, random=True),
    "width": Number("In pixels.", 16, 8192, multiple=8),
    "height": Number("In pixels.", 16, 8192, multiple=8),
    "clip_skip": Number("1 takes the text encoder's last layer, 2 the one before it.", 1, 12),
    "precision": Name("Of the networks; auto is fp16 on a GPU and fp32 on a CPU.", "auto, fp32, fp16 or bf16",
                      _precisions),
}  # fmt: skip
"""The fields of `farm.cell.Settings`, in its order."""


def read_values(name: str, items: Sequence[Text], reading: Reading) -> list[Value]:
    """The values of a setting that a list of texts stands for; what is wrong is noted.

    Args:
        name: of the setting.
        items: as written; each may stand for several values.
        reading: what is known, and the place for mistakes.
    """
    setting, parts = SETTINGS[name], []
    for item in items:
        with reading.mistakes.caught(item.place, name):
            parts += [Text.at(item.place, part) for part in setting.split(item, reading.models)]
    values: list[Value] = []
    for position, part in enumerate(parts):
        with reading.mistakes.caught(part.place, name):
            values += setting.expand(parts, position, reading)
        if len(values) > MAX_VALUES:
            reading.mistakes.add(part.place, f"{name}: more than {MAX_VALUES} values are not allowed")
            break
    return values


def read_value(name: str, item: Written, reading: Reading) -> Value | None:
    """The one value of a setting that a text stands for; None, and a noted mistake, if it is not one."""
    if not isinstance(item, Text):
        kind = "a list" if isinstance(item, Items) else "a mapping"
        reading.mistakes.add(
            item.place, f"{name}: {kind} is not allowed here; several values belong under sweep"
        )
        return None
    values = read_values(name, [item], reading)
    if len(values) > 1:
        what = f"{name}: {quoted(item)} is several values; they belong under sweep"
        reading.mistakes.add(item.place, what)
    return values[0] if len(values) == 1 else None
