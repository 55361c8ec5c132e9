"""What a run holds while it renders: memory after each quarter of many cheap cells.

`python -m benchmarks.run_memory [CELLS]` renders one-step cells and writes them as `farm run` does, with
workers on Ray and then in this process. It prints JSON: this process's resident memory after each quarter, in
MB, and what the pictures weigh together. Memory that stays flat while pictures pile up on disk shows that
only what is in flight is held.
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
from farm.cluster.coordinator import Farm
from farm.cluster.inline import InlineFarm
from farm.cluster.ray_farm import RayFarm
from farm.plan import Plan
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


def measure(plan: Plan, farm: Farm, folder: Path) -> dict[str, object]:
    """Renders a plan into a folder."""
    process, quarters, done, weight = psutil.Process(), [], 0, 0
    started = time.perf_counter()
    with Store(folder, plan) as store, farm:
        for event in farm.render(plan.cells):
            if not isinstance(event, Outcome):
                continue
            store.write(event)
            done, weight = done + 1, weight + len(event.png)
            if done * 4 % len(plan.cells) < 4:
                quarters.append(round(process.memory_info().rss / 2**20, 1))
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "resident_mb_after_each_quarter": quarters,
        "pictures_mb": round(weight / 2**20, 1),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=int, nargs="?", default=4000)
    cells = parser.parse_args().cells
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = folder / "memory.yaml"
        job.write_text(JOB.format(cells=cells), encoding="utf-8")
        place = look_around(folder)
        [plan] = load_plans([job], [], place)
        plan = plan.keyed({"tiny-cats": "benchmark"})
        checkpoints = {"tiny-cats": place.checkpoints["tiny-cats"].path}
        report = {
            "cells": cells,
            "ray_leader": measure(plan, RayFarm(checkpoints, ()), folder / "ray"),
            "inline": measure(plan, InlineFarm(checkpoints, ()), folder / "inline"),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
