import gc
import sys
import tracemalloc
from collections.abc import Iterator

import pytest

from benchmarks.engine_overhead import CELLS, ROWS_AT_ONCE, measure

BUDGET = 64 * 1024
"""Bytes of shared answers: full after some fifteen cells."""

LEAST_LEAK = 32
"""Bytes that a list of one small object for each cell would grow by."""


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def held() -> int:
    """Bytes of Python's objects; a tensor that is kept has one."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "cells"), [("plain", 5000), ("recipe", 300)])
def test_an_engine_holds_no_more_after_many_cells_than_after_few(kind: str, cells: int, traced: None) -> None:
    overhead = measure(CELLS[kind], cells, 2, held, share_budget=BUDGET)
    assert (overhead.cells, overhead.rows) == (cells, cells * 2 * ROWS_AT_ONCE)
    _, first, *_, last = overhead.held
    assert (last - first) / (cells * 3 / 4) < LEAST_LEAK


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "steps"), [("plain", 40), ("recipe", 40)])
def test_what_it_costs_a_row_is_printed(kind: str, steps: int, capsys: pytest.CaptureFixture[str]) -> None:
    overhead = measure(CELLS[kind], 500, steps, lambda: 0)
    assert overhead.rows == 500 * steps * ROWS_AT_ONCE
    with capsys.disabled():
        sys.stdout.write(f"\n{kind}: {overhead.processor / overhead.rows * 1e6:.1f} µs a row\n")
