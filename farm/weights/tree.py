"""What a pickle holds must be a tree that anybody can walk."""

from collections import OrderedDict
from typing import Any

from farm.weights.rebuilding import ParameterDict
from farm.weights.tensor_info import Damaged, Inert, TensorInfo

MOST_NODES = 2_000_000
"""Every value counts as often as it is mentioned: who walks the tree need not care what is shared."""

DEEPEST = 64

LEAVES = (TensorInfo, Inert, str, int, float, bool, bytes, type(None))
CONTAINERS = (dict, OrderedDict, ParameterDict, list, tuple)


def check_tree(tree: Any) -> None:
    """Sees to it that a tree is one, of values that files may hold.

    Raises:
        Damaged: it contains itself, is too deep or, with shared parts counted each time, too large.
    """
    measured: dict[int, tuple[int, int]] = {}  # of containers: nodes, levels
    entered: set[int] = set()
    pending: list[Any] = [(tree,)]
    while pending:
        node = pending[-1]
        inner = _containers(node)
        if id(node) in measured:
            pending.pop()
            continue
        if id(node) not in entered:
            entered.add(id(node))
            ahead = [one for one in inner if id(one) not in measured]
            if any(id(one) in entered for one in ahead):
                raise Damaged("its pickle holds something that contains itself")
            pending.extend(ahead)
            if ahead:
                continue
        pending.pop()
        entered.discard(id(node))
        nodes = len(node) + sum(measured[id(one)][0] for one in inner)
        levels = 1 + max((measured[id(one)][1] for one in inner), default=0)
        if nodes > MOST_NODES or levels > DEEPEST:
            raise Damaged("its pickle holds more than weights do: it was made to deceive")
        measured[id(node)] = (nodes, levels)


def _containers(node: Any) -> list[Any]:
    found = []
    for value in node.values() if isinstance(node, dict) else node:
        if type(value) in CONTAINERS:
            found.append(value)
        elif type(value) not in LEAVES:
            raise Damaged(f"its pickle holds a {type(value).__name__.strip('_')} where a value should be")
    return found
