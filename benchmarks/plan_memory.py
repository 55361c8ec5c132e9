"""What compiling a large plan costs: time and memory of each cell. Prints JSON.

Run it as `python -m benchmarks.plan_memory [CELLS]`.
"""

import json
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

from farm.job import Vocabulary, load_job
from farm.plan import compile_job

TEMPLATE = """\
model: cats
prompt: a cat in the snow
sweep:
  sampler: all
  cfg_scale: 1-10 (+.1)
  steps: [5, 10, 20, 40]
  replace: {{cat: [cat, dog, tiger]}}
seed: 1
seeds: {seeds}
"""
"""12 samplers × 91 scales × 4 step counts × 3 animals = 13,104 cells a seed."""

CELLS_A_SEED = 12 * 91 * 4 * 3


def measure(cells: int) -> dict[str, float | int]:
    """Compile about so many cells, once for the time and once for the memory.

    Args:
        cells: wanted at least.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.yaml"
        path.write_text(TEMPLATE.format(seeds=-(-cells // CELLS_A_SEED)), encoding="utf-8")
        job = load_job(path, Vocabulary(models={"cats": ()}, plugins={}))
    started = time.perf_counter()
    compile_job(job)
    seconds = time.perf_counter() - started
    tracemalloc.start()
    plan = compile_job(job)
    kept, peak = tracemalloc.get_traced_memory()
    keyed = plan.keyed({"cats": "0" * 64})
    del plan
    kept_keyed, _ = tracemalloc.get_traced_memory()
    count = len(keyed.cells)
    return {
        "cells": count,
        "seconds": round(seconds, 2),
        "bytes_per_cell": round(kept / count),
        "bytes_per_cell_while_compiling": round(peak / count),
        "bytes_per_cell_with_keys": round(kept_keyed / count),
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000), indent=2))
