"""The demo's cells, rendered by the farm and by diffusers' own pipeline, with the same weights.

`python -m benchmarks.demo_sheet` prints JSON: seconds of each way, ratios to one pipeline call per cell, and
the largest difference of a pixel (of 255) for the samplers that both have in exactly the same form. The two
farms are timed with their workers up, since a run starts them once; what starting takes stands beside it.
"""

import argparse
import io
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import numpy as np
import torch
from PIL import Image

from farm.cell import Cell, Outcome
from farm.cli.jobs import load_plans, look_around
from farm.cluster.coordinator import Farm
from farm.cluster.inline import InlineFarm
from farm.cluster.ray_farm import RayFarm
from farm.render.device import choose_device

WARM_UP = 8
"""Cells rendered before the clock runs, so that every worker has its networks loaded."""

EXACT = {"Euler", "Euler a", "Heun", "LMS"}
"""Samplers that diffusers has in the same form, so that pictures can be compared."""

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
}

Pictures = dict[int, np.ndarray]


def demo_cells(seeds: int) -> list[Cell]:
    """The cells of jobs/demo.yaml, each at so many seeds, without its plugins."""
    overrides = [f"seeds={seeds}", "precision=fp32"]
    [plan] = load_plans([Path("jobs/demo.yaml")], overrides, look_around(None))
    return [replace(cell.keyed("benchmark"), plugins=()) for cell in plan.cells]


def by_farm(farm: Farm, cells: Sequence[Cell]) -> Pictures:
    """All cells through a farm; raises if one fails."""
    pictures: Pictures = {}
    for event in farm.render(cells):
        if isinstance(event, Outcome):
            if event.status != "done":
                raise RuntimeError(f"cell {event.cell.number}: {event.error}")
            pictures[event.cell.number] = np.asarray(Image.open(io.BytesIO(event.png)))
    return pictures


def by_pipeline(pipeline: Any, cells: Sequence[Cell], batched: bool) -> Pictures:
    """Cells through diffusers' pipeline, one call per cell or one for all seeds of equal settings."""
    pictures: Pictures = {}
    for cells_of_call in _calls(cells, batched):
        first = cells_of_call[0].settings
        pipeline.scheduler = _scheduler(pipeline, first.sampler)
        images = pipeline(
            [first.prompt] * len(cells_of_call),
            negative_prompt=[first.negative_prompt] * len(cells_of_call),
            num_inference_steps=first.steps,
            guidance_scale=first.cfg_scale,
            width=first.width,
            height=first.height,
            generator=[torch.Generator().manual_seed(cell.settings.seed) for cell in cells_of_call],
        ).images
        pictures |= {
            cell.number: np.asarray(image) for cell, image in zip(cells_of_call, images, strict=True)
        }
    return pictures


def _calls(cells: Sequence[Cell], batched: bool) -> list[list[Cell]]:
    if not batched:
        return [[cell] for cell in cells]

    def but_seed(cell: Cell) -> str:
        return repr(replace(cell.settings, seed=0))

    return [list(group) for _, group in groupby(sorted(cells, key=but_seed), key=but_seed)]


def _scheduler(pipeline: Any, sampler: str) -> Any:
    name, options = SCHEDULERS[sampler.removesuffix(" Karras")]
    # Said both ways: the configuration is that of the scheduler before.
    karras = {"use_karras_sigmas": sampler.endswith(" Karras")}
    return getattr(diffusers, name).from_config(
        pipeline.scheduler.config, timestep_spacing="linspace", **options, **karras
    )


def largest_difference(ours: Pictures, theirs: Pictures, cells: Sequence[Cell]) -> int:
    """Of a pixel's channel, among the cells whose sampler both sides have exactly."""
    same = [cell.number for cell in cells if cell.settings.sampler in EXACT]
    return max(int(np.abs(ours[number].astype(int) - theirs[number].astype(int)).max()) for number in same)


def timed(render: Callable[[], Pictures]) -> tuple[float, Pictures]:
    """Seconds that it took, and what came of it."""
    started = time.perf_counter()
    pictures = render()
    return time.perf_counter() - started, pictures


def main() -> None:
    """Measures and prints."""
    options = _options()
    cells = demo_cells(options.seeds)
    folder = look_around(None).checkpoints[cells[0].settings.model].path
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32).to(
        choose_device()
    )
    pipeline.set_progress_bar_config(disable=True)
    by_pipeline(pipeline, cells[:1], batched=False)
    seconds: dict[str, float] = {}
    pictures: dict[str, Pictures] = {}
    for name, farm in (
        ("farm_inline", InlineFarm({cells[0].settings.model: folder}, ())),
        ("farm_workers", RayFarm({cells[0].settings.model: folder}, (), workers=options.workers)),
    ):
        started = time.perf_counter()
        with farm:
            by_farm(farm, cells[:WARM_UP])
            seconds[f"{name}_start"] = time.perf_counter() - started
            seconds[name], pictures[name] = timed(lambda farm=farm: by_farm(farm, cells))  # type: ignore[misc]
    seconds["diffusers_per_cell"], theirs = timed(lambda: by_pipeline(pipeline, cells, batched=False))
    seconds["diffusers_seeds_batched"], _ = timed(lambda: by_pipeline(pipeline, cells, batched=True))
    print(json.dumps(_report(cells, seconds, pictures, theirs), indent=2))


def _report(
    cells: Sequence[Cell], seconds: dict[str, float], pictures: dict[str, Pictures], theirs: Pictures
) -> dict[str, Any]:
    per_cell = seconds["diffusers_per_cell"]
    return {
        "device": choose_device(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "cells": len(cells),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "times_faster_than_diffusers_per_cell": {
            name: round(per_cell / value, 2) for name, value in seconds.items() if not name.endswith("_start")
        },
        "largest_pixel_difference": {
            name: largest_difference(ours, theirs, cells) for name, ours in pictures.items()
        },
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="seeds of each of the demo's cells")
    parser.add_argument("--workers", type=int, help="of the farm on Ray; as many as `farm run` takes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
