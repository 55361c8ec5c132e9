"""The sizes that batches have: few, so that a row meets few different kernels, compilations and graphs."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable

Limit = Callable[[Hashable], int]
"""The largest batch of a batch key."""

BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Rows of a call; a batch between two of them is filled up to the larger, by a third at most in the mean."""


def bucket_of(rows: int) -> int:
    """The smallest that holds so many rows; `rows` itself where none does."""
    position = bisect_left(BUCKETS, rows)
    return BUCKETS[position] if position < len(BUCKETS) else rows


def bucket_within(rows: int) -> int:
    """The largest of no more than so many rows, at least 1."""
    return BUCKETS[max(0, bisect_right(BUCKETS, rows) - 1)]
