"""The sheet by the farm: by the engine in this process, and by workers on Ray."""

import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.sheet.account import AccountedRunner, Kind
from benchmarks.sheet.side import Pictures, Side
from farm.cell import Cell, Outcome
from farm.cluster.ray_farm import RayFarm
from farm.render.capacity import Capacity
from farm.render.draws import THREADS, Draws
from farm.render.engine import Engine
from farm.render.recipes import text_to_image
from farm.weights.checkpoint import Networks

WARM_UP_STEPS = 2


def by_engine(
    cells: Sequence[Cell],
    networks: Networks,
    device: torch.device,
    rows: int | None = None,
    draw_threads: int = THREADS,
) -> Side:
    """All cells in mixed batches of one engine in this process.

    Args:
        cells: of the sheet.
        networks: whatever model the cells name.
        device: of the networks.
        rows: the largest batch; by the kind of device if not given.
        draw_threads: that draw noise.

    Raises:
        RuntimeError: a cell failed.
    """
    capacity = Capacity(device, rows)
    runner = AccountedRunner(lambda *_: networks, device, capacity)
    engine = Engine(runner, capacity, draws=Draws(draw_threads))
    started, processor = time.perf_counter(), time.process_time()
    for cell in cells:
        engine.submit(cell.number, text_to_image(cell.settings))
    pictures: Pictures = {}
    asked: dict[int, int] = {}
    while engine.in_flight:
        for finished in engine.step():
            number: Any = finished.name
            if finished.error is not None:
                raise RuntimeError(f"cell {number} failed: {finished.error}") from finished.error
            pictures[number] = finished.result.pixels.numpy()
            asked[number] = finished.result.evaluations
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    engine.close()
    kinds = runner.kinds()
    return Side(
        seconds=seconds,
        images=len(cells),
        evaluations=sum(asked.values()),
        rows=kinds["unet"].rows,
        pictures=pictures,
        facts=_facts(kinds, seconds),
        processor=processor,
        asked=asked,
    )


def _facts(kinds: dict[str, Kind], seconds: float) -> dict[str, Any]:
    unet = kinds["unet"]
    spent = {name: round(kind.seconds, 3) for name, kind in kinds.items()}
    spent["else"] = round(seconds - sum(kind.seconds for kind in kinds.values()), 3)
    return {
        "calls": unet.calls,
        "rows_a_call": round(unet.rows / unet.calls, 2),
        "occupancy": round(unet.rows / unet.room, 4),
        "seconds_by_request": spent,
        "decoded_a_call": round(kinds["vae"].rows / kinds["vae"].calls, 2),
    }


def warm_up(cells: Sequence[Cell]) -> list[Cell]:
    """Each cell with few steps, so that every network has been called with about the batches to come."""
    return [replace(cell, settings=replace(cell.settings, steps=WARM_UP_STEPS)) for cell in cells]


def by_workers(cells: Sequence[Cell], folder: Path, workers: int) -> Side:
    """All cells by a farm on Ray, whose workers have a thread each; PNG files come back.

    Args:
        cells: of one model.
        folder: of that model's checkpoint.
        workers: how many.

    Raises:
        RuntimeError: a cell failed.
    """
    keyed = [cell.keyed("benchmark") for cell in cells]
    started = time.perf_counter()
    with RayFarm({cells[0].settings.model: folder}, (), workers=workers) as farm:
        _outcomes(farm, warm_up(keyed))
        ready = time.perf_counter()
        outcomes = _outcomes(farm, keyed)
        seconds = time.perf_counter() - ready
    facts = {"workers": workers, "seconds_to_start": round(ready - started, 2)}
    evaluations = sum(outcome.cell.evaluations for outcome in outcomes)
    pictures = {one.cell.number: np.asarray(Image.open(io.BytesIO(one.png))) for one in outcomes}
    return Side(seconds, len(cells), evaluations, 0, pictures, facts)


def _outcomes(farm: RayFarm, cells: Sequence[Cell]) -> list[Outcome]:
    outcomes = [event for event in farm.render(cells) if isinstance(event, Outcome)]
    for outcome in outcomes:
        if outcome.status != "done":
            raise RuntimeError(f"cell {outcome.cell.number} failed: {outcome.error}")
    return outcomes
