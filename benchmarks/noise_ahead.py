"""What drawing noise ahead saves: a sweep whose sampler follows a Brownian path, drawn on and off the loop.

`python -m benchmarks.noise_ahead [CELLS]` runs the engine on DPM++ SDE at latents of 64×64 with a stand-in
for the network: a call that takes a fixed time in which, as with a GPU, the processor is free. It prints
JSON: seconds with all draws made on the loop and with draws made ahead (of two runs each, in turns, the
faster), and their ratio, for several times of a call. The latents that come out are compared: they must be
equal to the bit.
"""

import argparse
import json
import math
import os
import platform
import time
from typing import Any

import torch

from farm.questions import Draw
from farm.render.capacity import Capacity
from farm.render.draws import Drawn, Draws
from farm.render.engine import Engine
from farm.render.guidance import Condition, Guidance, Origin, Stage, guided
from farm.render.noise import CellNoise
from farm.render.parameterization import parameterization_of
from farm.render.requests import Coroutine, Request, Weights
from farm.render.samplers import SAMPLERS
from farm.render.schedules import sigmas_for
from farm.render.task import Task
from farm.render.told import Conditioning
from farm.resolving import resolved
from farm.sampling import BUILT_IN

CALL_MS = (2.0, 20.0, 100.0)
"""Of the stand-in's call for a full batch: a small network on a large GPU, and slower ones."""

SHAPE = (4, 64, 64)
ROWS = 8
STATES = Conditioning(torch.zeros(77, 8))
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class OnTheLoop(Draws):
    """Draws at once, in the engine's thread."""

    def ask(self, task: Task, slot: int, draw: Draw) -> None:
        """Draws."""
        self._made.append((task, slot, draw.source.draw(draw.sigma, draw.lower)))

    def __init__(self) -> None:
        super().__init__(1)
        self._made: list[Drawn] = []

    def __len__(self) -> int:
        return len(self._made)

    @property
    def holding_up(self) -> frozenset[int]:
        """All of them."""
        return frozenset(range(len(self._made)))

    def wait_for(self, numbers: frozenset[int]) -> list[Drawn]:
        """All of them."""
        made, self._made = self._made, []
        return made


class Waiting:
    """Answers after a while, as a device would."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self, requests: list[Request]) -> list[Any]:
        """The rows' own inputs, halved."""
        time.sleep(self._seconds)
        return [getattr(row, "input") / 2 for row in requests]  # noqa: B009 - of Predict, the only kind here


def cell(seed: int, steps: int) -> Coroutine:
    """Latents of DPM++ SDE at CFG scale 1."""
    asked = {"model": "m", "prompt": "", "sampler": "DPM++ SDE", "cfg_scale": 1, "seed": seed, "steps": steps}
    settings, model = resolved(asked, BUILT_IN), parameterization_of(STABLE_DIFFUSION)
    row = BUILT_IN[settings.sampler]
    sigmas = sigmas_for(settings, row, BUILT_IN.schedules[settings.schedule], model)
    noise = CellNoise(settings, SHAPE, torch.device("cpu"))
    x = model.initial((yield Draw(noise.initial)), sigmas[0], row.starts_at_unit_variance)
    conditions = (Condition((Stage(steps, "text", STATES),), coefficient=1.0),)
    guidance = Guidance(Weights("m"), model, conditions, Origin((seed,), x))
    sampling = SAMPLERS[str(row.algorithm)](x, sigmas, noise.for_sampler(row, sigmas), eta=1.0, s_noise=1.0)
    return (yield from guided(sampling, guidance)).latents


def measure(cells: int, steps: int, seconds: float, draws: Draws) -> tuple[float, dict[Any, torch.Tensor]]:
    """Seconds for all cells, and their latents."""
    engine = Engine(Waiting(seconds), Capacity(torch.device("cpu"), ROWS * 4), draws=draws)
    started, latents = time.perf_counter(), {}
    for seed in range(cells):
        engine.submit(seed, cell(seed, steps))
    while engine.in_flight:
        for finished in engine.step():
            assert finished.error is None, finished.error
            latents[finished.name] = finished.result
    took = time.perf_counter() - started
    engine.close()
    return took, latents


def compare(cells: int, steps: int, milliseconds: float) -> dict[str, Any]:
    """Both ways, in turns."""
    on_the_loop = ahead = math.inf
    for _ in range(2):
        seconds, expected = measure(cells, steps, milliseconds / 1000, OnTheLoop())
        on_the_loop = min(on_the_loop, seconds)
        seconds, latents = measure(cells, steps, milliseconds / 1000, Draws())
        ahead = min(ahead, seconds)
    return {
        "call_ms": milliseconds,
        "on_the_loop_s": round(on_the_loop, 2),
        "ahead_s": round(ahead, 2),
        "ratio": round(on_the_loop / ahead, 2),
        "equal": all(torch.equal(latents[name], expected[name]) for name in expected),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=int, nargs="?", default=16)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measure(1, 2, 0, Draws())
    report = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "cells": arguments.cells,
        "steps": arguments.steps,
        "by_call": [compare(arguments.cells, arguments.steps, one) for one in CALL_MS],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
