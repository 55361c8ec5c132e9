"""What the engine itself takes of a row's time, and what it holds, with a network that answers at once.

`python -m benchmarks.engine_overhead [CELLS]` sends so many cheap cells of two steps through the engine, in
batches of 16, admitted as a renderer does; then fewer cells of 40 steps. It prints JSON: resident memory in
MB before and after each quarter, and microseconds a row and a cell that the engine's thread is on a
processor, without those in the network. Cells are either plain coroutines, which show the engine alone, or
whole recipes, which also read the prompt, have noise drawn by other threads, and do the arithmetic of Euler
and guidance on latents of 4×8×8. Each cell has its own seed: first rows are shared with no other cell, but
kept within the engine's byte budget, until which memory rises.
"""

import argparse
import cProfile
import gc
import json
import os
import platform
import pstats
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import psutil
import torch

from farm.cell import Settings
from farm.cli.jobs import look_around
from farm.render.capacity import Capacity
from farm.render.engine import SHARE_BUDGET, Engine
from farm.render.model import Model
from farm.render.recipes import text_to_image
from farm.render.requests import Coroutine, Decode, EncodeText, Open, Predict, Request, Weights
from farm.render.told import Conditioning, Encoded
from farm.resolving import resolved
from farm.sampling import BUILT_IN
from farm.weights.configs import scheduler_config_of
from farm.weights.tokenizer import Tokenizer, load_tokenizer

BATCH = 16
ROWS_AT_ONCE = 2
"""Of a cell: with and without its prompt."""

FEW_STEPS, MANY_STEPS = 2, 40
QUARTERS = 4
MIB = 2**20
SHAPE = (4, 8, 8)
WEIGHTS = Weights("m")
ASKED = {
    "model": "m", "prompt": "portrait of beautiful cat", "negative_prompt": "nudity", "sampler": "Euler",
    "width": 64, "height": 64,
}  # fmt: skip

MakeCell = Callable[[int, int], Coroutine]
"""Of a number, which names it, and its steps."""


class AtOnce:
    """A runner without networks. Rows are answered as those of a batch are: by slices of one tensor.

    Attributes:
        clock: seconds that went by in it.
        processor: seconds of them on a processor.
        rows: of the UNet that it was asked for.
    """

    def __init__(self) -> None:
        folder = look_around(None).checkpoints["tiny-cats"].path
        tokenizer = Tokenizer(load_tokenizer(folder / "tokenizer"), 77)
        self._answers: dict[type, Any] = {
            Open: Model(scheduler_config_of(folder), 12, tokenizer, torch.device("cpu")),
            EncodeText: Encoded((torch.zeros(77, 8),)),
            Decode: torch.zeros(64, 64, 3, dtype=torch.uint8),
        }
        self.clock = self.processor = 0.0
        self.rows = 0

    def run(self, requests: list[Request]) -> list[Any]:
        """An answer for each."""
        clock, processor = time.perf_counter(), time.thread_time()
        if isinstance(requests[0], Predict):
            self.rows += len(requests)
            answers = list(torch.zeros(len(requests), *SHAPE).unbind(0))
        else:
            answers = [self._answers[type(requests[0])]] * len(requests)
        self.clock += time.perf_counter() - clock
        self.processor += time.thread_time() - processor
        return answers


def plain_cell(_: int, steps: int) -> Coroutine:
    """Asks for as many rows as a picture does, and for nothing else."""
    latents, states = torch.zeros(SHAPE), Conditioning(torch.zeros(77, 8))
    for step in range(steps):
        yield tuple(Predict(WEIGHTS, latents, float(step), states) for _ in range(ROWS_AT_ONCE))


def recipe_cell(number: int, steps: int) -> Coroutine:
    """A picture by Euler, with the seed of its number."""
    return text_to_image(replace(_settings(steps), seed=number))


@cache
def _settings(steps: int) -> Settings:
    return resolved({**ASKED, "steps": steps}, BUILT_IN)


CELLS: dict[str, MakeCell] = {"plain": plain_cell, "recipe": recipe_cell}


@dataclass(frozen=True, slots=True)
class Overhead:
    """What so many cells took.

    Attributes:
        cells: how many.
        rows: of the UNet.
        clock: seconds that went by, without those in the network.
        processor: seconds of the engine's thread on a processor, without those in the network.
        held: what was held before, and after each quarter.
    """

    cells: int
    rows: int
    clock: float
    processor: float
    held: tuple[int, ...]


def measure(
    make_cell: MakeCell, cells: int, steps: int, held: Callable[[], int], share_budget: int = SHARE_BUDGET
) -> Overhead:
    """Sends cells through an engine, which is given more whenever fewer wait than a batch has rows.

    Args:
        make_cell: as one of `CELLS`.
        cells: how many.
        steps: of each.
        held: measures memory.
        share_budget: as the engine's.

    Raises:
        RuntimeError: a cell failed.
    """
    runner = AtOnce()
    engine = Engine(runner, Capacity(torch.device("cpu"), BATCH), share_budget)
    measured, done, clock, processor = [held()], 0, 0.0, 0.0
    for quarter in range(1, QUARTERS + 1):
        last = cells * quarter // QUARTERS
        clock, processor = clock - time.perf_counter(), processor - time.thread_time()
        for finished in _through(engine, make_cell, range(done, last), steps):
            if finished.error is not None:
                raise RuntimeError(f"cell {finished.name} failed: {finished.error}") from finished.error
        clock, processor = clock + time.perf_counter(), processor + time.thread_time()
        done = last
        measured.append(held())
    engine.close()
    return Overhead(cells, runner.rows, clock - runner.clock, processor - runner.processor, tuple(measured))


def _through(engine: Engine, make_cell: MakeCell, numbers: range, steps: int) -> Iterator[Any]:
    waiting = iter(numbers)
    number = next(waiting, None)
    while number is not None or engine.in_flight:
        while number is not None and engine.waiting < BATCH:
            engine.submit(number, make_cell(number, steps))
            number = next(waiting, None)
        yield from engine.step()


def resident() -> int:
    """Bytes of this process in memory, without what is only waiting to be collected."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def main() -> None:
    """Measures and prints."""
    options = _options()
    torch.set_num_threads(1)
    budget = round(options.share_budget * MIB)
    report: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "rows_a_batch": BATCH,
        "share_budget_mb": options.share_budget,
    }
    for name in options.kinds:
        measure(CELLS[name], 100, MANY_STEPS, resident)
        report[name] = {
            f"{steps} steps": _told(measure(CELLS[name], cells, steps, resident, budget))
            for steps, cells in ((FEW_STEPS, options.cells), (MANY_STEPS, max(4, options.cells // 50)))
        }
    print(json.dumps(report, indent=2))
    for name in options.kinds if options.profile else ():
        with cProfile.Profile() as profile:
            measure(CELLS[name], 500, MANY_STEPS, held=lambda: 0)
        print(f"\n{name} cells of {MANY_STEPS} steps", file=sys.stderr)
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(options.profile)


def _told(overhead: Overhead) -> dict[str, Any]:
    return {
        "cells": overhead.cells,
        "rows": overhead.rows,
        "microseconds_a_row": round(overhead.processor / overhead.rows * 1e6, 1),
        "microseconds_a_row_by_the_clock": round(overhead.clock / overhead.rows * 1e6, 1),
        "microseconds_a_cell": round(overhead.processor / overhead.cells * 1e6, 1),
        "resident_mb": [round(held / MIB, 1) for held in overhead.held],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=int, nargs="?", default=100_000)
    parser.add_argument("--kinds", nargs="+", choices=CELLS, default=list(CELLS), help="of cells")
    parser.add_argument("--share-budget", type=float, default=SHARE_BUDGET / MIB, help="of the engine, in MB")
    parser.add_argument("--profile", type=int, metavar="LINES", default=0, help="print where the time goes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
