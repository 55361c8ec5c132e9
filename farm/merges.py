"""Merges, checkpoints that are made of others: their names, and the methods there are. Without torch.

The name of a merge says how it is made, so that it can stand wherever a checkpoint's name can::

    0.7 a + 0.3 b        weighted sum
    a + 0.3 (b - c)      add difference

A name that would be misread stands in single quotes; a quote inside is doubled.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, TypeVar

from farm.axes import BadValue, number_label
from farm.errors import quoted

Part = TypeVar("Part", covariant=True)

Tensors = Sequence[Any]
"""Of one name, of each part of a merge; numbers will do as well."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to merge checkpoints.

    Attributes:
        name: as A1111 calls it.
        parts: how many checkpoints it takes.
        formula: how a merge is called: each `{}` a part, `{weight}` and `{rest}`, which is 1 less the weight.
        function: of the tensors of one name and the weight; a tensor that a part lacks leaves that of the
            first one as it is.
        aliases: other names.
    """

    name: str
    parts: int
    formula: str
    function: Callable[[Tensors, float], Any]
    aliases: tuple[str, ...] = ()


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("weighted sum", 2, "{rest} {} + {weight} {}",
               lambda parts, weight: (1 - weight) * parts[0] + weight * parts[1], ("sum",)),
        Method("add difference", 3, "{} + {weight} ({} - {})",
               lambda parts, weight: parts[0] + weight * (parts[1] - parts[2]), ("difference",)),
        Method("no interpolation", 1, "{}", lambda parts, _: parts[0]),
    )
}  # fmt: skip
"""By name. The first that takes so many parts is the usual one for them."""

USUAL_WEIGHT = 0.3
"""A1111's."""

LONGEST = 2000
"""Characters of a text that may be the name of a merge."""


@dataclass(frozen=True, slots=True)
class Merge(Generic[Part]):
    """A checkpoint that is made of others.

    Attributes:
        parts: their names, or their paths; the first one's architecture is the merge's.
        method: a name in `METHODS`.
        weight: 0 to 1.
    """

    parts: tuple[Part, ...]
    method: str
    weight: float

    @property
    def row(self) -> Method:
        """Of the table of methods."""
        return METHODS[self.method]


Checkpoint = Path | Merge[Path]
"""Where the weights of a checkpoint are: in a file, in a folder of diffusers, or made of several files."""


def files_of(checkpoint: Checkpoint) -> tuple[Path, ...]:
    """All files and folders that it is made of."""
    return checkpoint.parts if isinstance(checkpoint, Merge) else (checkpoint,)


def resolved(checkpoint: Checkpoint) -> Checkpoint:
    """The same with absolute paths."""
    if isinstance(checkpoint, Merge):
        paths = tuple(path.resolve() for path in checkpoint.parts)
        return Merge(paths, checkpoint.method, checkpoint.weight)
    return Path(checkpoint).resolve()


def name_of(merge: Merge[str]) -> str:
    """What a merge is called: how it is made."""
    weight = Fraction(_number(merge.weight))
    numbers = {"weight": number_label(weight), "rest": number_label(1 - weight)}
    return merge.row.formula.format(*map(_quoted, merge.parts), **numbers)


def merge_of(name: str) -> Merge[str] | None:
    """The merge that a name stands for; None if it is none.

    Raises:
        BadValue: it is one, but its numbers are not right.
    """
    for method in METHODS.values():
        if method.parts > 1 and len(name) <= LONGEST and (match := _pattern(method).fullmatch(name.strip())):
            groups = match.groupdict()
            parts = tuple(_unquoted(groups[f"part{number}"]) for number in range(method.parts))
            weight = weight_in(groups["weight"])
            rest = groups.get("rest")
            if rest is not None and abs(float(rest) + weight - 1) > 1e-5:
                raise BadValue(f"{rest} and {groups['weight']} of the merge {quoted(name)} do not make 1")
            return Merge(parts, method.name, weight)
    return None


def weighted(name: str, weight: float | None) -> str:
    """The name of the same merge with another weight; the name itself if it is no merge, or there is none."""
    if weight is None or (merge := merge_of(name)) is None:
        return name
    return name_of(Merge(merge.parts, merge.method, weight))


def unweighted(name: str, symbol: str) -> str:
    """What all such merges are called, with a symbol for the weight; the name itself if it is no merge."""
    if (merge := merge_of(name)) is None:
        return name
    parts = map(_quoted, merge.parts)
    return merge.row.formula.format(*parts, weight=symbol, rest=f"(1 - {symbol})")


def weight_in(text: str) -> float:
    """The weight of a merge that a text says.

    Raises:
        BadValue: it is none.
    """
    try:
        weight = float(text)
    except ValueError:
        weight = -1
    if not 0 <= weight <= 1:
        raise BadValue(f"{quoted(text)} is not allowed as the weight of a merge; a number from 0 to 1")
    return weight


def method_for(name: str, parts: int) -> Method:
    """The method of a name, or the usual one for so many parts if it is empty.

    Raises:
        BadValue: there is none, or it takes another number of parts.
    """
    wanted = " ".join(re.split(r"[\s_-]+", name.strip().casefold()))
    fitting = [row for row in METHODS.values() if (wanted in (row.name, *row.aliases) if wanted else True)]
    if not fitting:
        raise BadValue(f"the method {quoted(name)} is not known; {', '.join(METHODS)}")
    for row in fitting:
        if row.parts == parts:
            return row
    if wanted:
        raise BadValue(f"{fitting[0].name} takes {fitting[0].parts} checkpoints, not {parts}")
    raise BadValue(f"a merge is made of two checkpoints, or of three, not of {parts}")


def content_of(merge: Merge[Any], contents: Sequence[str]) -> str:
    """What stands for a merge's content hash, in hex: the same for the same contents, method and weight.

    Args:
        merge: of which the names do not count.
        contents: SHA-256 of each part in hex; if any is not known, neither is this.
    """
    if not all(contents):
        return ""
    content = json.dumps([merge.method, _number(merge.weight), *contents])
    return hashlib.sha256(content.encode()).hexdigest()


def _number(weight: float) -> str:
    """To six digits, which is what names say."""
    return f"{weight:.6g}"


_PLAIN = re.compile(r"[^'()+\s](?:[^'()+]*[^'()+\s])?")


def _quoted(name: str) -> str:
    if _PLAIN.fullmatch(name) and " - " not in name:
        return name
    doubled = name.replace("'", "''")
    return f"'{doubled}'"


def _unquoted(name: str) -> str:
    return name[1:-1].replace("''", "'") if name.startswith("'") else name


def _pattern(method: Method) -> re.Pattern[str]:
    """What names of its merges look like."""
    names = [rf"(?P<part{number}>'(?:[^']|'')+'|[^'()+\s][^()+]*?)" for number in range(method.parts)]
    number = r"\d*\.?\d+(?:e-?\d+)?"
    escaped = re.escape(method.formula).replace(r"\{", "{").replace(r"\}", "}").replace(r"\ ", " ")
    pattern = escaped.format(*names, weight=rf"(?P<weight>{number})", rest=rf"(?P<rest>{number})")
    return re.compile(pattern.replace(" ", r"\s+"))
