"""How long prompts take to read: linear in their length, whatever stands in them.

`python -m benchmarks.prompts` prints JSON: for each kind of text, milliseconds to parse it, to lay it over 20
steps and to weigh its pieces, at 10 kB and at 100 kB (the best of five), and their ratio, which is 10 where
the time is linear.
"""

import json
import platform
import time
from collections.abc import Callable
from typing import Any

from farm.prompts.emphasis import weighted
from farm.prompts.grammar import parse

SIZES = (10_000, 100_000)
RUNS = 5

KINDS: dict[str, Callable[[int], str]] = {
    "one bracket, never closed": lambda size: "(" * size,
    "brackets in brackets": lambda size: "([" * (size // 4) + "])" * (size // 4),
    "brackets and bars": lambda size: "([|:])" * (size // 6),
    "words in brackets": lambda size: "(cat:1.1), [hat], " * (size // 18),
    "alternations": lambda size: "[a|b]" * (size // 5),
    "edits in edits": lambda size: "[" * (size // 5) + "a" + ":.5]" * (size // 5),
    "plain text": lambda size: "a ginger cat, " * (size // 14),
    "spaces": lambda size: " " * size,
}


def milliseconds(text: str) -> float:
    """To read a text, the best of some runs."""
    times = []
    for _ in range(RUNS):
        parse.cache_clear()
        weighted.cache_clear()
        started = time.perf_counter()
        for part in parse(text).parts:
            for said in {said for _, said in part.schedule(20)}:
                weighted(said)
        times.append(time.perf_counter() - started)
    return min(times) * 1000


def compare(kind: Callable[[int], str]) -> dict[str, Any]:
    """Both sizes, and their ratio."""
    small, large = (milliseconds(kind(size)) for size in SIZES)
    return {"10 kB": round(small, 2), "100 kB": round(large, 1), "ratio": round(large / small, 1)}


def main() -> None:
    """Prints what was measured."""
    rows = {name: compare(kind) for name, kind in KINDS.items()}
    print(json.dumps({"machine": platform.processor() or platform.machine(), "milliseconds": rows}, indent=2))


if __name__ == "__main__":
    main()
