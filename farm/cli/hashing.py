"""Hashing files that are large enough for somebody to wonder."""

import sys
from collections.abc import Callable
from pathlib import Path

from farm.weights.hashes import Hashes, content_files

SLOW = 1 << 29
"""Bytes that take so long that somebody who waits should know why."""


def telling(hashes: Hashes) -> Callable[[Path], str]:
    """Hashes files, and says so where that takes a while."""

    def hash_of(path: Path) -> str:
        if not (known := hashes.known(path)):
            size = sum(file.stat().st_size for file in content_files(path))
            if size > SLOW:
                print(f"reading {path} once for its hash ({size / 1e9:.1f} GB)", file=sys.stderr, flush=True)
        return known or hashes.of(path)

    return hash_of
