"""The kinds of settings: how a text becomes values, what is allowed, and how to say so."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from farm.axes import BadValue, expand_item, number_label, split_names, split_numbers
from farm.errors import near_name, quoted
from farm.init_images import is_no_image
from farm.reading import Names as Names
from farm.reading import Reading as Reading
from farm.reading import Seeds as Seeds
from farm.reading import Value as Value

MAX_PROMPT_BYTES = 100_000


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
        above: whether the lowest number itself is not allowed.
        words: what may stand there instead of a number, and means None.
        zero: whether 0 is allowed although it is below the lowest.
    """

    about: str
    lowest: int
    highest: float
    whole: bool = True
    multiple: int = 1
    random: bool = False
    above: bool = False
    words: tuple[str, ...] = ()
    zero: bool = False

    @property
    def allowed(self) -> str:
        """In words."""
        kind = "a number" if not self.whole else "a whole number"
        if self.multiple != 1:
            kind = f"a multiple of {self.multiple}"
        span = f"above {self.lowest}, up to" if self.above else f"from {self.lowest} to"
        others = ["0"] * self.zero + ["random"] * self.random + list(self.words[:1])
        return ", or ".join((f"{kind} {span} {self.highest}", *others))

    def split(self, text: str, reading: Reading) -> list[str]:
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
        if items[position].casefold() in self.words:
            return [(self.words[0], None)]
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
        inside = self.lowest <= number <= self.highest and not (self.above and number == self.lowest)
        if not (inside or (self.zero and number == 0)) or (self.whole and number % self.multiple):
            raise BadValue(f"{label} is not allowed; {self.allowed}")
        return label, int(number) if self.whole else float(number)

    def schema(self) -> dict[str, Any]:
        """JSON Schema of one value."""
        number: dict[str, Any] = {"type": "integer" if self.whole else "number"}
        number |= {"exclusiveMinimum" if self.above else "minimum": self.lowest, "maximum": self.highest}
        if self.multiple != 1:
            number["multipleOf"] = self.multiple
        others = [0] * self.zero + ["random", -1] * self.random + list(self.words)
        return {"anyOf": [number, {"enum": others}]} if others else number


@dataclass(frozen=True, slots=True)
class Name:
    """A setting that is one of a few names; several are separated by commas, and `all` is all of them.

    Attributes:
        about: what it is, for editors.
        hint: where the names are found, for messages.
        known: gives the names.
        all: gives those that `all` stands for; every known one if it is not given.
        shown: which are proposed by editors; every known one if it is not given.
        other: reads what is none of them; gives the canonical spelling, or None if it means nothing.
        separated: splits a text with several names.
        more: where other names may come from, for messages about one that is like no known name.
        empty: the name that stands for nothing said, whose value is None.
    """

    about: str
    hint: str
    known: Callable[[Reading], Names]
    all: Callable[[Reading], Sequence[str]] | None = None
    shown: Sequence[str] = ()
    other: Callable[[str, Reading], str | None] = lambda wanted, reading: None
    separated: Callable[[str], list[str]] = split_names
    more: str = ""
    empty: str = ""

    def split(self, text: str, reading: Reading) -> list[str]:
        """The items of a text; a known name stays whole, commas or not.

        Raises:
            BadValue: if there is nothing in it, or quotes are not closed.
        """
        if not text.strip():
            raise BadValue(f"no value is given ({self.hint})")
        return [text] if _matching(text, self.known(reading)) else self.separated(text)

    def expand(self, items: Sequence[str], position: int, reading: Reading) -> list[Value]:
        """The values that one item of a list stands for.

        Raises:
            BadValue: if it is not allowed.
        """
        known, wanted = self.known(reading), items[position]
        if wanted.casefold() == "all" and known:
            names = self.all(reading) if self.all else known
            return [(name, name) for name in names if name != self.empty]
        found = _matching(wanted, known)
        if len(found) == 1:
            return [(found[0], None if found[0] == self.empty else found[0])]
        if found:
            raise BadValue(f"{quoted(wanted)} may be any of {', '.join(map(repr, found))}")
        if (other := self.other(wanted, reading)) is not None:
            return [(other, other)]
        near = nearest(wanted, (name for name in _all_names(known) if name not in ("none", self.empty)))
        hint = f"{self.hint}; {self.more}" if self.more and not near else self.hint
        raise BadValue(f"{quoted(wanted)} is not known{near} ({hint})")

    def schema(self) -> dict[str, Any]:
        """JSON Schema of one value: names are proposed, but other spellings pass."""
        proposed = [{"enum": list(self.shown)}] if self.shown else []
        return {"anyOf": [*proposed, {"type": "string"}]} if proposed else {"type": "string"}


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting that is true or false, or left to the farm.

    Attributes:
        about: what it is, for editors.
    """

    about: str

    def split(self, text: str, reading: Reading) -> list[str]:
        """The items of a text."""
        return split_numbers(text)

    def expand(self, items: Sequence[str], position: int, reading: Reading) -> list[Value]:
        """The value of one item of a list.

        Raises:
            BadValue: if it is not allowed.
        """
        wanted = items[position].casefold()
        for label, (value, spellings) in _CHOICES.items():
            if wanted in spellings:
                return [(label, value)]
        raise BadValue(f"{quoted(items[position])} is not allowed; automatic, true or false")

    def schema(self) -> dict[str, Any]:
        """JSON Schema of one value; for editors with YAML 1.2, `on` and `off` are texts."""
        texts = [text for _, texts in _CHOICES.values() for text in texts if text not in ("true", "false")]
        return {"enum": [True, False, *texts]}


_CHOICES: Mapping[str, tuple[bool | None, tuple[str, ...]]] = {
    "automatic": (None, ("automatic", "auto")),
    "true": (True, ("true", "yes", "on")),
    "false": (False, ("false", "no", "off")),
}


@dataclass(frozen=True, slots=True)
class Prose:
    """A setting that is any text. It is never split: several are written as a list.

    Attributes:
        about: what it is, for editors.
    """

    about: str

    def split(self, text: str, reading: Reading) -> list[str]:
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


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A setting that is a picture: the path of a file, or none. It is never split, as paths have commas.

    Its value is the SHA-256 of the file in hex, and empty for none: a picture counts by its content.

    Attributes:
        about: what it is, for editors.
    """

    about: str

    def split(self, text: str, reading: Reading) -> list[str]:
        """The text itself."""
        return [text]

    def expand(self, items: Sequence[str], position: int, reading: Reading) -> list[Value]:
        """The picture of one item of a list.

        Raises:
            BadValue: if it is not there, or cannot be read.
        """
        name = items[position].strip()
        if is_no_image(name):
            return [("none", "")]
        return [(name, reading.init_images.read(name))]

    def schema(self) -> dict[str, Any]:
        """JSON Schema of one value."""
        return {"type": "string"}


Setting = Number | Name | Choice | Prose | ImageFile


def nearest(wanted: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing if no known name is near."""
    near = near_name(wanted, known)
    return f"; did you mean {near!r}?" if near else ""


def _matching(wanted: str, known: Names) -> list[str]:
    """The canonical names that a name may mean: one spelled exactly so comes first."""
    if wanted in known:
        return [str(wanted)]
    exact = [name for name, others in known.items() if wanted in others]
    folded = wanted.casefold()
    return exact or [name for name, others in known.items() if folded in map(str.casefold, (name, *others))]


def _all_names(known: Names) -> list[str]:
    return [spelling for name, others in known.items() for spelling in (name, *others)]
