"""The sheet by diffusers' own pipeline: a call for each cell, or one for several seeds of a cell."""

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from benchmarks.sheet.side import Side
from farm.cell import Cell, Settings
from farm.weights.checkpoint import Networks

THEIRS: Mapping[str, str] = {
    "Euler a": "EulerAncestralDiscrete", "Euler": "EulerDiscrete", "LMS": "LMSDiscrete",
    "Heun": "HeunDiscrete", "DPM2": "KDPM2Discrete", "DPM2 a": "KDPM2AncestralDiscrete",
    "DPM++ 2M": "DPMSolverMultistep", "DPM++ SDE": "DPMSolverSDE", "DDIM": "DDIM", "PLMS": "PNDM",
}  # fmt: skip
"""Schedulers of which each step asks as often as our sampler's; the others are stood in for by Euler."""

EXACT = ("Euler", "Euler a", "Heun", "LMS")
"""Samplers that they have in the same form, so that pictures can be compared."""

WARM_UP_STEPS = 2


@dataclass(frozen=True, slots=True)
class Call:
    """What a call of the pipeline came to.

    Attributes:
        seconds: that it took.
        processor: seconds of all threads on processors.
        evaluations: of the model, for each picture.
        images: uint8 `(height, width, 3)`, one for each seed.
    """

    seconds: float
    processor: float
    evaluations: int
    images: list[np.ndarray]


class Pipeline:
    """diffusers' pipeline with the farm's networks.

    Attributes:
        pipeline: a `StableDiffusionPipeline`.

    Args:
        networks: that it shares.
        unet: instead of the networks' own, such as a compiled one.
    """

    def __init__(self, networks: Networks, unet: Any = None) -> None:
        self._config = networks.scheduler_config
        pipeline: Any = StableDiffusionPipeline(
            networks.vae, networks.text_encoder, networks.tokenizer, networks.unet,
            self.scheduler("Euler", ""), None, None, requires_safety_checker=False,
        )  # fmt: skip
        if unet is not None:
            pipeline.unet = unet
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline

    def __call__(self, settings: Settings, steps: int, seeds: Sequence[int]) -> Call:
        """Renders a cell.

        Args:
            settings: of the cell, but for steps and seed.
            steps: of the scheduler.
            seeds: of the pictures, all in one call.
        """
        started, processor = time.perf_counter(), time.process_time()
        self.pipeline.scheduler = self.scheduler(settings.sampler, settings.schedule)
        images = self.pipeline(
            [settings.prompt] * len(seeds),
            negative_prompt=[settings.negative_prompt] * len(seeds),
            num_inference_steps=steps,
            guidance_scale=settings.cfg_scale,
            width=settings.width,
            height=settings.height,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        ).images
        return Call(
            seconds=time.perf_counter() - started,
            processor=time.process_time() - processor,
            evaluations=len(self.pipeline.scheduler.timesteps),
            images=[np.asarray(image) for image in images],
        )

    def scheduler(self, sampler: str, schedule: str) -> Any:
        """That of diffusers for a sampler, a stand-in if there is none."""
        kind = getattr(diffusers, f"{THEIRS.get(sampler, 'EulerDiscrete')}Scheduler")
        asked = {"timestep_spacing": "linspace", "use_karras_sigmas": schedule == "karras"}
        known = inspect.signature(kind).parameters
        return kind(**{name: value for name, value in {**self._config, **asked}.items() if name in known})


def by_pipeline(
    pipeline: Pipeline,
    cells: Sequence[Cell],
    asked: Mapping[int, int],
    seeds: int = 1,
    every_cell: bool = False,
) -> Side:
    """The sheet by calls of the pipeline.

    Unless every cell is to be timed, it is one of each sampler, whose time counts for all of its CFG scales:
    these change no cost.

    Args:
        pipeline: warmed up here, which is not counted.
        cells: of the sheet.
        asked: how often the farm asked the model, by the number of a cell; so often do stand-ins.
        seeds: of each cell, in one call.
        every_cell: whether all of them are timed.
    """
    rows = _rows(cells)
    started = time.perf_counter()
    for row in rows:  # each scheduler has its own types of timesteps, which a network is compiled for
        pipeline(row[0].settings, WARM_UP_STEPS, _seeds(row[0], seeds))
    warming_up = time.perf_counter() - started
    timed = [(cell, 1) for cell in cells] if every_cell else [(row[0], len(row)) for row in rows]
    calls = [(cell, times, _timed(pipeline, cell, asked, seeds)) for cell, times in timed]
    evaluations = sum(times * seeds * call.evaluations for _, times, call in calls)
    return Side(
        seconds=sum(times * call.seconds for _, times, call in calls),
        processor=sum(times * call.processor for _, times, call in calls),
        images=len(cells) * seeds,
        evaluations=evaluations,
        rows=2 * evaluations,
        pictures={cell.number: call.images[0] for cell, _, call in calls},
        facts={
            "images_a_call": seeds,
            "timed": "every cell" if every_cell else "a cell of each sampler, times its CFG scales",
            "seconds_to_warm_up": round(warming_up, 2),
            "seconds_of_a_cell": {_title(cell): round(call.seconds, 3) for cell, _, call in calls},
        },
    )


def _rows(cells: Sequence[Cell]) -> list[list[Cell]]:
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(_title(cell), []).append(cell)
    return list(rows.values())


def _title(cell: Cell) -> str:
    return f"{cell.settings.sampler}, {cell.settings.schedule}"


def _timed(pipeline: Pipeline, cell: Cell, asked: Mapping[int, int], seeds: int) -> Call:
    known = cell.settings.sampler in THEIRS
    return pipeline(cell.settings, cell.settings.steps if known else asked[cell.number], _seeds(cell, seeds))


def _seeds(cell: Cell, seeds: int) -> list[int]:
    return [cell.settings.seed + number for number in range(seeds)]
