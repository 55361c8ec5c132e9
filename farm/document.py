"""A YAML file as people wrote it: a tree of texts, each with the place it stands at.

What a text means is for its reader to say: ``7``, ``7.0`` and ``"7"`` are one number to a setting that is a
number, and ``1e5`` is a name to one that is a name. So nothing is lost to YAML's own guesses.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from farm.axes import BadValue
from farm.errors import BadInput, Problem, quoted

MAX_BYTES = 4 << 20
MAX_NODES = 100_000
"""Of a file when every alias is replaced by what it stands for."""

PLAIN_TAG = "tag:yaml.org,2002:"
"""Before the kind of a scalar, in the tags of YAML itself."""

_KINDS = ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "seq", "map")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands.

    Attributes:
        line: in the file, from 1; for an option, a number that puts it behind the file.
        source: the file, or the option as typed.
    """

    line: int
    source: str

    def __str__(self) -> str:
        return self.source if self.line >= AFTER_FILE else f"{self.source}:{self.line}"


AFTER_FILE = 1 << 40


class Text(str):
    """A scalar as written, without its quotes; nothing at all (``null``, ``~``) is the empty text."""

    __slots__ = ("place", "tag")
    place: Place
    tag: str

    @classmethod
    def at(cls, place: Place, text: str, tag: str = "str") -> "Text":
        """A text that stands at a place; the tag is YAML's guess at its type."""
        made = cls(text)
        made.place, made.tag = place, tag
        return made


class Items(list["Written"]):
    """A list as written."""

    place: Place


class Table(dict[Text, "Written"]):
    """A mapping as written; its keys know their places."""

    place: Place


Written = Text | Items | Table


class Mistakes:
    """The mistakes found so far."""

    def __init__(self) -> None:
        self._found: set[tuple[Place, str]] = set()
        self._warnings: set[tuple[Place, str]] = set()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: Place, what: str) -> None:
        """Note one mistake."""
        self._found.add((place, what))

    def warn(self, place: Place, what: str) -> None:
        """Note what is no mistake, but looks like one."""
        self._warnings.add((place, what))

    def warnings(self) -> tuple[str, ...]:
        """A line for each that was noted, in the order of the file."""
        return tuple(f"{place}: warning: {what}" for place, what in sorted(self._warnings))

    @contextmanager
    def caught(self, place: Place, name: str = "") -> Iterator[None]:
        """Note the `BadValue` that the block may raise, as a mistake about `name`."""
        try:
            yield
        except BadValue as mistake:
            self.add(place, f"{name}: {mistake}" if name else str(mistake))

    def raise_any(self) -> None:
        """Raise what was found, in the order of the file.

        Raises:
            BadInput: if there is any mistake.
        """
        if self._found:
            raise BadInput([Problem(str(place), what) for place, what in sorted(self._found)])


def read_text(path: Path) -> str:
    """The text of a file of at most `MAX_BYTES`.

    Raises:
        BadInput: if it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise _refused(path, "is not UTF-8 text") from error
    except ValueError as error:  # a name with a NUL in it
        raise _refused(path, f"cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise _refused(path, f"is larger than {MAX_BYTES // 1024} KiB")
    return text


def read_table(text: str, path: Path, mistakes: Mistakes) -> Table:
    """The tree of a YAML text whose root is a mapping; duplicate keys and the like are noted.

    Args:
        text: of the file.
        path: of the file, for messages.
        mistakes: takes what is wrong inside.

    Raises:
        BadInput: if there is no tree to go on with.
    """
    try:
        root = YAML(typ="rt", pure=True).compose(text)
        _count_nodes(root)
        tree = _Reader(str(path), mistakes).tree(root) if root is not None else Table()
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise _refused(path, f"this is not YAML: {what}; {_QUOTES}", line) from error
    except (YAMLError, BadValue) as error:
        raise _refused(path, " ".join(str(error).split())) from error
    except RecursionError as error:
        raise _refused(path, "is nested too deeply") from error
    if not isinstance(tree, Table):
        raise _refused(path, "a job is a mapping, with lines such as `steps: 20`", tree.place.line)
    if not tree:
        tree.place = Place(1, str(path))
    return tree


_QUOTES = "a text that begins with { [ * & % @ or has ': ' in it stands in 'single quotes'"


def _refused(path: Path, what: str, line: int = 0) -> BadInput:
    return BadInput([Problem(f"{path}:{line}" if line else str(path), what)])


def _count_nodes(root: Node | None) -> None:
    """Each node is visited once and its expanded size kept, so that counting does not explode itself."""
    sizes: dict[int, int] = {}

    def size(node: Node) -> int:
        if isinstance(node, ScalarNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = MAX_NODES + 1  # stands for a node inside itself
            sizes[id(node)] = 1 + sum(size(child) for child in _children(node))
        return sizes[id(node)]

    if root is not None and size(root) > MAX_NODES:
        raise BadValue(f"expands to more than {MAX_NODES} entries, aliases included")


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value)


class _Reader:
    """Turns ruamel's nodes into the tree."""

    def __init__(self, source: str, mistakes: Mistakes) -> None:
        self._source = source
        self._mistakes = mistakes

    def tree(self, node: Node) -> Written:
        place = Place(node.start_mark.line + 1, self._source)
        tag = str(node.tag)
        if not tag.startswith(PLAIN_TAG) or tag.removeprefix(PLAIN_TAG) not in _KINDS:
            self._mistakes.add(place, f"the tag {quoted(tag)} is not allowed")
        if isinstance(node, ScalarNode):
            kind = tag.removeprefix(PLAIN_TAG)
            return Text.at(place, "" if kind == "null" else node.value, kind)
        if isinstance(node, MappingNode):
            return self._table(node, place)
        items = Items(self.tree(child) for child in node.value)
        items.place = place
        return items

    def _table(self, node: MappingNode, place: Place) -> Table:
        table = Table()
        table.place = place
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self.tree(key_node)
            if not isinstance(key, Text):
                self._mistakes.add(key.place, "a key must be a text")
            elif key in lines:
                self._mistakes.add(key.place, f"{key}: stands here again, it is in line {lines[key]} already")
            else:
                lines[key] = key.place.line
                value = self.tree(value_node)
                if value == "":
                    value.place = key.place  # where nothing stands, YAML sees it in the next line
                table[key] = value
        return table


def plain_data(written: Written) -> Any:
    """The tree as ordinary Python values, with the types that YAML sees in the texts."""
    if isinstance(written, Table):
        return {str(key): plain_data(value) for key, value in written.items()}
    if isinstance(written, Items):
        return [plain_data(item) for item in written]
    return _plain_scalar(written)


def _plain_scalar(text: Text) -> Any:
    if text.tag == "null":
        return None
    if text.tag == "bool":
        return text.lower() in ("true", "yes", "on")
    try:
        if text.tag == "int":
            return int(text)
        if text.tag == "float":
            return float(text)
    except ValueError:
        pass  # 0x10, 1_000, .inf: the reader of the text may know
    return str(text)


def kind_of(text: str) -> str:
    """What YAML takes a text without quotes for: `str`, `int`, `float`, …"""
    tag = YAML(typ="rt", pure=True).resolver.resolve(ScalarNode, text, (True, False))
    return str(tag).removeprefix(PLAIN_TAG)


def place_of(root: Written, path: tuple[int | str, ...]) -> Place:
    """Where the entry at a path of keys and positions stands, or the last part of it that is there."""
    place, current = root.place, root
    for step in path:
        if isinstance(current, Table) and isinstance(step, str):
            place = next((key.place for key in current if key == step), place)
            found = current.get(step)  # type: ignore[call-overload]
        else:
            found = current[step] if isinstance(current, Items) and isinstance(step, int) else None
            place = found.place if found is not None else place
        if found is None:
            return place
        current = found
    return place
