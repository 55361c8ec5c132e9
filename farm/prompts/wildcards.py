"""Wildcards of dynamic prompts: lists of texts that a prompt calls by a name, as in `__animal__`."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from dynamicprompts.wildcards import WildcardManager
from dynamicprompts.wildcards.item import WildcardItem
from dynamicprompts.wildcards.values import WildcardValues

from farm.errors import near_name, quoted
from farm.prompts.hiding import WRAP, hidden, printable, shown

_LOGGER = logging.getLogger("dynamicprompts")
_LOGGER.addHandler(logging.NullHandler())  # nothing goes to the terminal: what it warns of is a mistake here
_LOGGER.propagate = False

_REFERENCE = re.compile(r"__(.+?)__", re.DOTALL)
_WEIGHT = re.compile(r"(\d+\.?\d*|\.\d+)::(.*)", re.DOTALL)


class BadDynamic(ValueError):
    """A text that is no dynamic prompt; the message says why, in one line."""


@dataclass(frozen=True)
class Wildcards:
    """Lists of texts, by name.

    Attributes:
        values: by name; a text may have a weight before it, as in ``3::cat``.
        looked_in: where they are looked for, in words.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    looked_in: str = ""

    def matching(self, pattern: str) -> list[str]:
        """The names that a name or pattern stands for: itself, or those like it, or those below a folder.

        Raises:
            BadDynamic: if there is none that has values.
        """
        found = self._names(pattern)
        if not found:
            wanted = _cleaned(pattern)
            near = near_name(wanted, self.values)
            hint = f"; did you mean {near!r}?" if near else ""
            raise BadDynamic(f"there is no wildcard {quoted(wanted)}{hint} (looked for in {self.looked_in})")
        return found

    def reachable(self, texts: Iterable[str], replaced: Collection[str] = ()) -> "Wildcards":
        """Those that texts may come to use; all, where a name is put together only when it is drawn.

        Args:
            texts: prompts and parts of prompts; names that are not known are left out.
            replaced: texts that something else may be put for.
        """
        waiting, names = list(texts), dict[str, None]()
        while waiting:
            text = waiting.pop()
            references = _REFERENCE.findall(text)
            if text.count(WRAP) % 2 or any(_is_put_together(name, replaced) for name in references):
                return self
            for reference in references:
                for name in self._names(reference.lstrip("~!@").partition("(")[0].strip()):
                    waiting += self.values[name] if name not in names else ()
                    names[name] = None
        return replace(self, values={name: self.values[name] for name in sorted(names)})

    def _names(self, pattern: str) -> list[str]:
        wanted = _cleaned(pattern)
        if self.values.get(wanted):
            return [wanted]
        filled = sorted(name for name, values in self.values.items() if values)
        found = [name for name in filled if fnmatchcase(name, wanted)]
        return found or [name for name in filled if fnmatchcase(name, f"*/{wanted}")]


def _cleaned(pattern: str) -> str:
    return re.sub(r"[\\/]+", "/", pattern).strip("/")


def _is_put_together(name: str, replaced: Collection[str]) -> bool:
    return "{" in name or "$" in name or any(text in name for text in replaced)


def read_wildcards(folder: Path) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The wildcards in a folder's .txt, .yaml and .json files, and what could not be read, in words."""
    complaints = _Complaints()
    _LOGGER.addHandler(complaints)
    try:
        found = sorted(WildcardManager(folder).tree.map.items())
        values = {name: tuple(map(_written, collection.get_values())) for name, collection in found}
    finally:
        _LOGGER.removeHandler(complaints)
    return values, complaints.messages


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(" ".join(record.getMessage().split()))


def _written(value: str | WildcardItem) -> str:
    text = printable(str(value)).removeprefix("\ufeff").strip()
    return f"{value.weight:g}::{text}" if isinstance(value, WildcardItem) else text


class Manager(WildcardManager):
    """Gives the library wildcards that it need not read."""

    def __init__(self, wildcards: Wildcards, weighted: bool) -> None:
        super().__init__()
        self._wildcards = wildcards
        self._weighted = weighted
        self._known: dict[str, WildcardValues] = {}

    def get_values(self, wildcard: str) -> WildcardValues:
        """The texts that a name or pattern stands for, in the order written.

        Raises:
            BadDynamic: if there are none.
        """
        if wildcard not in self._known:
            names = self._wildcards.matching(shown(wildcard))
            texts = [text for name in names for text in self._wildcards.values[name]]
            self._known[wildcard] = WildcardValues.from_items(map(self._item, dict.fromkeys(texts)))
        return self._known[wildcard]

    def _item(self, value: str) -> str | WildcardItem:
        weighed = _WEIGHT.fullmatch(value)
        if not weighed:
            return hidden(value)
        text = hidden(weighed[2])
        return WildcardItem(text, float(weighed[1])) if self._weighted else text
