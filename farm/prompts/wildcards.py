"""Wildcards of dynamic prompts: lists of texts that a prompt calls by a name, as in `__animal__`."""

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from dynamicprompts.wildcards import WildcardManager
from dynamicprompts.wildcards.collection.structured import parse_structured_file
from dynamicprompts.wildcards.item import WildcardItem
from dynamicprompts.wildcards.values import WildcardValues

from farm.errors import near_name, quoted
from farm.prompts.hiding import WRAP, hidden, printable, shown, tags_hidden

_LOGGER = logging.getLogger("dynamicprompts")
_LOGGER.addHandler(logging.NullHandler())  # nothing goes to the terminal: what it warns of is a mistake here
_LOGGER.propagate = False

_MOST_BYTES = 4 << 20
"""Of one file."""

_REFERENCE = re.compile(r"__(.+?)__", re.DOTALL)
_WEIGHT = re.compile(r"(\d+\.?\d*|\.\d+)::(.*)", re.DOTALL)


class BadDynamic(ValueError):
    """A text that is no dynamic prompt; the message says why, in one line.

    Attributes:
        faults: all that is wrong, each in words.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Wildcards:
    """Lists of texts, by name.

    Attributes:
        values: by name; a text may have a weight before it, as in ``3::cat``.
        looked_in: where they are looked for, in words.
        files: that have some of them, a text in each line, by name.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    looked_in: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)

    def matching(self, pattern: str) -> list[str]:
        """The names that a name or pattern stands for: itself, or those like it, or those below a folder.

        Raises:
            BadDynamic: if there is none that has values, or its file cannot be read.
        """
        found = self._names(pattern)
        if not found:
            wanted = _cleaned(pattern)
            if empty := self._named(wanted):
                raise BadDynamic(f"the wildcard {quoted(empty[0])} has no values{self._file(empty[0])}")
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
            text = tags_hidden(waiting.pop())
            found = _REFERENCE.findall(text)
            if text.count(WRAP) % 2 or any(_is_put_together(name, replaced) for name in found):
                names = dict.fromkeys(self.values)
                break
            for reference in map(_name_in, found):
                for name in self._named(_cleaned(reference)):
                    waiting += self._readable(name) if name not in names else ()
                    names[name] = None
        values = {name: self._readable(name) for name in sorted(names)}
        return replace(self, values={name: texts for name, texts in values.items() if texts})

    def _readable(self, name: str) -> tuple[str, ...]:
        """The texts of a name; none if they cannot be read."""
        try:
            return self.values[name]
        except BadDynamic:
            return ()

    def where(self, name: str, index: int) -> str:
        """Where a value stands, for messages: `` (file:line)``, or nothing if that is not known."""
        if name not in self.files:
            return ""
        lines = [number for number, _ in _lines(self.files[name])]
        return f" ({self.files[name]}:{lines[index]})" if index < len(lines) else ""

    def _file(self, name: str) -> str:
        return f" ({self.files[name]})" if name in self.files else ""

    def _names(self, pattern: str) -> list[str]:
        return [name for name in self._named(_cleaned(pattern)) if self.values[name]]

    def _named(self, wanted: str) -> list[str]:
        """The names that have values, or that are as wanted but have none."""
        if wanted in self.values:
            return [wanted]
        names = sorted(self.values)
        found = [name for name in names if fnmatchcase(name, wanted)]
        return found or [name for name in names if fnmatchcase(name, f"*/{wanted}")]


def references(text: str) -> list[str]:
    """The names of wildcards that a text calls, patterns included."""
    return [_name_in(reference) for reference in _REFERENCE.findall(tags_hidden(text))]


def _name_in(reference: str) -> str:
    return str(reference).lstrip("~!@").partition("(")[0].strip()


def _cleaned(pattern: str) -> str:
    return re.sub(r"[\\/]+", "/", pattern).strip("/")


def _is_put_together(name: str, replaced: Collection[str]) -> bool:
    return "{" in name or "$" in name or any(text in name for text in replaced)


def read_wildcards(folder: Path) -> tuple[Mapping[str, tuple[str, ...]], Mapping[str, Path], list[str]]:
    """The wildcards in a folder's .txt, .yaml and .json files.

    Returns:
        The texts of each, which are read where somebody asks for them; the files of those that have one for
        themselves; and what could not be read, in words.
    """
    complaints = _Complaints()
    texts: dict[str, tuple[str, ...]] = {}
    files: dict[str, Path] = {}
    _LOGGER.addHandler(complaints)
    try:
        for path in _files(folder):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if path.suffix == ".txt":
                files[name] = path
            elif path.suffix in (".yaml", ".json"):
                texts |= _structured(path, path.parent.relative_to(folder), complaints.messages)
    finally:
        _LOGGER.removeHandler(complaints)
    return _Texts({**files, **texts}), files, complaints.messages


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(where) / name for name in sorted(names))


def _structured(path: Path, below: Path, complaints: list[str]) -> dict[str, tuple[str, ...]]:
    """The wildcards of a .yaml or .json file; what cannot be read is told among the complaints."""
    try:
        _check_file(path)
        found = list(parse_structured_file(path))
    except BadDynamic as error:
        complaints.append(str(error))
        return {}
    except Exception as error:  # of the library, and of all that it uses
        complaints.append(f"{path} cannot be read: {' '.join(str(error).split())[:100]}")
        return {}
    return {
        (below / name).as_posix(): tuple(map(_written, collection.get_values())) for name, collection in found
    }


def _check_file(path: Path) -> None:
    """Turn away what would be read for ever.

    Raises:
        BadDynamic: if it is no regular file, or too large.
    """
    if not path.is_file():
        raise BadDynamic(f"{path} is not a regular file")
    if path.stat().st_size > _MOST_BYTES:
        raise BadDynamic(f"{path} is larger than {_MOST_BYTES >> 20} MiB")


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file that have a text, and their numbers.

    Raises:
        BadDynamic: if it cannot be read.
    """
    try:
        _check_file(path)
        text = path.read_text("utf-8-sig", errors="ignore")
    except OSError as error:
        raise BadDynamic(f"{path} cannot be read: {error.strerror or error}") from error
    lines = enumerate(text.split("\n"), start=1)
    return [(number, line) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]


class _Texts(Mapping[str, tuple[str, ...]]):
    """Texts by name, those of files read when they are asked for."""

    def __init__(self, sources: Mapping[str, Path | tuple[str, ...]]) -> None:
        self._sources = dict(sources)

    def __getitem__(self, name: str) -> tuple[str, ...]:
        source = self._sources[name]
        if isinstance(source, Path):
            source = self._sources[name] = tuple(_written(line) for _, line in _lines(source))
        return source

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


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
