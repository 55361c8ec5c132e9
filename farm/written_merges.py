"""Merges as jobs write them, ``model: {merge: [a, b], weight: 0.3}``, become the names that merges have."""

from typing import Any

from farm.axes import BadValue
from farm.document import Items, Mistakes, Table, Text, Written
from farm.errors import quoted
from farm.merges import METHODS, USUAL_WEIGHT, Merge, method_for, name_of, weight_in

MODEL, SWEEP = "model", "sweep"
MERGE, METHOD, WEIGHT = "merge", "method", "weight"

MERGE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A checkpoint that is made of others.",
    "properties": {
        MERGE: {"type": "array", "items": {"type": "string"}, "minItems": 2},
        METHOD: {
            "anyOf": [{"enum": [row.name for row in METHODS.values() if row.parts > 1]}, {"type": "string"}]
        },
        WEIGHT: {"type": "number", "minimum": 0, "maximum": 1, "default": USUAL_WEIGHT},
    },
    "required": [MERGE],
    "additionalProperties": False,
}
"""JSON Schema of one."""


def name_merges(tree: Table, mistakes: Mistakes) -> None:
    """Puts the names of merges where a job says how they are made.

    Args:
        tree: of the job; it is changed.
        mistakes: takes what is wrong.
    """
    for key in tree:
        if key == MODEL:
            tree[key] = _named(tree[key], mistakes)
        elif key == SWEEP:
            _walk(tree[key], mistakes)


def _walk(written: Written, mistakes: Mistakes) -> None:
    if isinstance(written, Items):
        for item in written:
            _walk(item, mistakes)
    elif isinstance(written, Table):
        for key in written:
            if key == MODEL:
                written[key] = _named(written[key], mistakes)
            _walk(written[key], mistakes)


def _named(written: Written, mistakes: Mistakes) -> Written:
    if isinstance(written, Items):
        for position, item in enumerate(written):
            if isinstance(item, Table):
                written[position] = _named(item, mistakes)
        return written
    if not isinstance(written, Table) or MERGE not in written:
        return written
    try:
        name = name_of(_merge(written))
    except BadValue as mistake:
        mistakes.add(written.place, f"{MODEL}: {mistake}")
        parts = written[Text(MERGE)]
        first = parts[0] if isinstance(parts, Items) and parts else None
        return first if isinstance(first, Text) else Text.at(written.place, "")  # no mistake of its own
    doubled = name.replace('"', '""')
    return Text.at(written.place, f'"{doubled}"' if "," in name else name)


def _merge(table: Table) -> Merge[str]:
    said: dict[str, Written] = {str(key): value for key, value in table.items()}
    if unknown := [key for key in said if key not in (MERGE, METHOD, WEIGHT)]:
        raise BadValue(f"a merge has no {quoted(unknown[0])}; {MERGE}, {METHOD} and {WEIGHT} are there")
    parts = said[MERGE]
    names = (
        [str(part).strip() for part in parts if isinstance(part, Text)] if isinstance(parts, Items) else []
    )
    if not isinstance(parts, Items) or len(names) != len(parts) or not all(names):
        raise BadValue("what to merge is a list of checkpoints, as in {merge: [a, b], weight: 0.3}")
    method, weight = (said.get(key, Text()) for key in (METHOD, WEIGHT))
    if not isinstance(method, Text):
        raise BadValue(f"the method of a merge is one of {', '.join(METHODS)}")
    if not isinstance(weight, Text):
        raise BadValue("a merge has one weight; several are an axis called merge_weight")
    if len(names) < 2:
        raise BadValue("a merge is made of two checkpoints, or of three")
    row = method_for(method, len(names))
    return Merge(tuple(names), row.name, weight_in(weight) if weight else USUAL_WEIGHT)
