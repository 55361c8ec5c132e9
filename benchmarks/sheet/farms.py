"""The sheet by the farm: by the engine in this process, and by workers on Ray."""

import copy
import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.sheet.side import Side
from farm.cell import Cell, Outcome
from farm.cluster.coordinator import Done
from farm.cluster.ray_farm import RayFarm
from farm.render.capacity import Capacity
from farm.render.clock import clock_of
from farm.render.compiled import SEEN
from farm.render.draws import THREADS, Draws
from farm.render.engine import Engine
from farm.render.memory import Memory
from farm.render.recipes import Picture, text_to_image
from farm.render.runner import Runner
from farm.weights.checkpoint import Networks
from farm.work import Work, total

WARM_UP_STEPS = 2
COMPILING_STEPS = SEEN + 2
"""Of which the first is shared and has few rows; the last is when a full batch is compiled."""

KINDS = ("load", "encode text", "predict", "decode", "compile")
"""Of what takes time."""


def by_engine(
    cells: Sequence[Cell],
    networks: Networks,
    device: torch.device,
    rows: int | None = None,
    draw_threads: int = THREADS,
    compiled: bool = False,
) -> Side:
    """All cells in mixed batches of one engine in this process, after a warm-up, in which it compiles.

    Args:
        cells: of the sheet.
        networks: whatever model the cells name.
        device: of the networks.
        rows: the largest batch; by the kind of device if not given.
        draw_threads: that draw noise.
        compiled: whether the UNet is, as with `farm run --compile`.

    Raises:
        RuntimeError: a cell failed.
    """
    memory = Memory(device)
    capacity = Capacity(device, rows, memory if device.type == "cuda" else None)
    clock = clock_of(device)
    runner = Runner(
        lambda *_: own(networks), device, capacity=capacity, compiles=compiled, memory=memory, clock=clock
    )
    engine = Engine(runner, capacity, draws=Draws(draw_threads), clock=clock)
    started = time.perf_counter()
    _pictures(engine, warm_up(cells, COMPILING_STEPS if compiled else WARM_UP_STEPS))
    warming_up = time.perf_counter() - started
    engine.take_work()
    filled_up = runner.filled_up
    started, processor = time.perf_counter(), time.process_time()
    pictures = _pictures(engine, cells)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    engine.close()
    work = engine.take_work()
    asked = {number: picture.evaluations for number, picture in pictures.items()}
    return Side(
        seconds=seconds,
        images=len(cells),
        evaluations=sum(asked.values()),
        rows=work.of("predict").rows,
        pictures={number: picture.pixels.numpy() for number, picture in pictures.items()},
        facts={
            "seconds_to_warm_up": round(warming_up, 2),
            **_facts(work),
            "rows_that_fill_up": runner.filled_up - filled_up,
            "notes": runner.take_notes(),
        },
        processor=processor,
        asked=asked,
    )


def own(networks: Networks) -> Networks:
    """A copy on a card, where the farm lays networks out anew: the others are to have them as they were."""
    return copy.deepcopy(networks) if networks.unet.device.type == "cuda" else networks


def _pictures(engine: Engine, cells: Sequence[Cell]) -> dict[int, Picture]:
    for cell in cells:
        engine.submit(cell.number, text_to_image(cell.settings))
    pictures: dict[int, Picture] = {}
    while engine.in_flight:
        for finished in engine.step():
            number: Any = finished.name
            if finished.error is not None:
                raise RuntimeError(f"cell {number} failed: {finished.error}") from finished.error
            pictures[number] = finished.result
    return pictures


def _facts(work: Work) -> dict[str, Any]:
    rows, pictures = work.of("predict"), work.of("decode")
    seconds = {kind: work.of(kind).seconds for kind in KINDS}
    spent = {**seconds, "waiting for noise": work.waiting, "samplers, guidance, loop": work.between}
    return {
        "calls": rows.calls,
        "rows_a_call": round(rows.rows / rows.calls, 2),
        "occupancy": round(work.occupancy, 4),
        "rows_shared": work.shared_rows,
        "decoded_a_call": round(pictures.rows / pictures.calls, 2),
        "seconds_by_request": {name: round(taken, 3) for name, taken in spent.items()},
    }


def warm_up(cells: Sequence[Cell], steps: int) -> list[Cell]:
    """Each cell with few steps, so that every network has been called with about the batches to come.

    Their seed and texts are others: an engine keeps first rows and encoded texts, which would be shared.
    """
    first = cells[0].settings
    others: dict[str, Any] = {
        "steps": steps,
        "seed": first.seed + 1,
        "prompt": f"warm {first.prompt}",
        "negative_prompt": f"warm {first.negative_prompt}",
    }
    return [replace(cell, settings=replace(cell.settings, **others)) for cell in cells]


def by_workers(cells: Sequence[Cell], folder: Path, workers: int, compiled: bool = False) -> Side:
    """All cells by a farm on Ray, whose workers have a thread each; PNG files come back.

    Args:
        cells: of one model.
        folder: of that model's checkpoint.
        workers: how many.
        compiled: whether their UNets are.

    Raises:
        RuntimeError: a cell failed.
    """
    keyed = [cell.keyed("benchmark") for cell in cells]
    started = time.perf_counter()
    steps, options = (COMPILING_STEPS if compiled else WARM_UP_STEPS), {"compiled": compiled}
    with RayFarm({cells[0].settings.model: folder}, (), workers=workers, options=options) as farm:
        _rendered(farm, warm_up(keyed, steps))
        ready = time.perf_counter()
        outcomes, work = _rendered(farm, keyed)
        seconds = time.perf_counter() - ready
    return Side(
        seconds=seconds,
        images=len(cells),
        evaluations=sum(outcome.cell.evaluations for outcome in outcomes),
        rows=work.of("predict").rows,
        pictures={one.cell.number: np.asarray(Image.open(io.BytesIO(one.png))) for one in outcomes},
        facts={"workers": workers, "seconds_to_start": round(ready - started, 2), **_facts(work)},
    )


def _rendered(farm: RayFarm, cells: Sequence[Cell]) -> tuple[list[Outcome], Work]:
    events = list(farm.render(cells))
    outcomes = [event for event in events if isinstance(event, Outcome)]
    for outcome in outcomes:
        if outcome.status != "done":
            raise RuntimeError(f"cell {outcome.cell.number} failed: {outcome.error}")
    return outcomes, total(event.work for event in events if isinstance(event, Done))
