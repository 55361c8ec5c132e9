"""What a run holds while it renders: memory after each quarter of many cheap cells.

`python -m benchmarks.run_memory [CELLS]` renders one-step cells in this process, writes them as `farm run`
does, and prints JSON: resident memory after each quarter, in MB, and what the pictures weigh together. Memory
that stays flat while pictures pile up on disk shows that only what is in flight is held.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import psutil

from farm.cell import Outcome
from farm.cli.jobs import load_plans, look_around
from farm.cluster.inline import InlineFarm
from farm.results.store import Store

JOB = """\
name: memory
model: tiny-cats
prompt: a ginger cat
width: 64
height: 64
steps: 1
sampler: Euler
cfg_scale: 1
seeds: {cells}
"""


def measure(cells: int, folder: Path) -> dict[str, object]:
    """Renders so many cells into a folder."""
    job = folder / "memory.yaml"
    job.write_text(JOB.format(cells=cells), encoding="utf-8")
    place = look_around(folder)
    [plan] = load_plans([job], [], place)
    plan = plan.keyed({"tiny-cats": "benchmark"})
    process, quarters, done, weight = psutil.Process(), [], 0, 0
    started = time.perf_counter()
    farm = InlineFarm({"tiny-cats": place.checkpoints["tiny-cats"].path}, ())
    with Store(folder / "memory", plan) as store, farm:
        for event in farm.render(plan.cells):
            if not isinstance(event, Outcome):
                continue
            store.write(event)
            done, weight = done + 1, weight + len(event.png)
            if done * 4 % cells < 4:
                quarters.append(round(process.memory_info().rss / 2**20, 1))
    return {
        "cells": cells,
        "seconds": round(time.perf_counter() - started, 1),
        "resident_mb_after_each_quarter": quarters,
        "pictures_mb": round(weight / 2**20, 1),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=int, nargs="?", default=4000)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(parser.parse_args().cells, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
