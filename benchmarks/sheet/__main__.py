"""The article's sheet, all samplers of January 2023 × CFG scales, by the farm and by diffusers, in one run.

`python -m benchmarks.sheet` prints JSON, and its ratios to standard error. Both sides have the same networks
and threads. The sides: the farm's engine in this process; diffusers' pipeline called for each cell, as it is
and with a compiled UNet; the pipeline called for several seeds of a cell at once, which are the largest
batches that it makes of equal settings: a call has one scheduler, one number of steps and one CFG scale. The
sheet has one seed, so there such batches would be calls per cell; with `--seeds` they show what a sheet of
several would come to. On a CPU also the farm with two workers of a thread each.
"""

import argparse
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import torch

from benchmarks.sheet.cells import JANUARY, sheet
from benchmarks.sheet.compiling import compiled
from benchmarks.sheet.farms import by_engine, by_workers, own
from benchmarks.sheet.networks import SIZES, TINY_CATS, TOYS, decoding_flops, unet_flops
from benchmarks.sheet.pipelines import EXACT, Pipeline, by_pipeline
from benchmarks.sheet.report import (
    COMPILED,
    COMPILED_FARM,
    COMPILED_WORKERS,
    FARM,
    PER_CELL,
    SEEDS,
    WORKERS,
    Sides,
    aims,
    figures,
    lines,
)
from benchmarks.sheet.side import Side, largest_difference
from benchmarks.sheet.speed import BATCHES, matmul_flops, rows_a_second
from farm.cell import Cell
from farm.cli.jobs import look_around
from farm.plan import Plan
from farm.render.compiled import Compiled, UNet, plainly
from farm.render.device import choose_device
from farm.render.draws import THREADS
from farm.render.memory import Memory
from farm.render.tuning import tuned
from farm.weights.checkpoint import Networks

STEPS = 40
SCALES = 11


class Measurement:
    """One run: the sheet by each side, on one device with the same networks.

    Args:
        options: of `options_of`.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._size = (TOYS if options.toy else SIZES)[options.size]
        self._pixels: int = options.pixels or self._size.pixels
        self._device = torch.device(options.device)
        if self._device.type == "cpu":
            torch.set_num_threads(options.threads)
        elif self._device.type == "cuda" and self._device.index is not None:
            torch.cuda.set_device(self._device)
        self._networks: Networks = self._size.load(self._device, options.precision)
        self._plan: Plan = sheet(
            options.samplers, options.scales, options.steps, self._pixels, options.precision
        )

    def report(self) -> dict[str, Any]:
        """Measures; returns the whole report."""
        sides = self._sides()
        flops = unet_flops(self._networks.unet.config, self._pixels)
        peak = matmul_flops(self._device, self._networks.unet.dtype)
        found = figures(sides, flops, peak)
        return {
            **self._circumstances(),
            "tflop_a_row": flops / 1e12,
            "tflop_a_decoded_picture": decoding_flops(self._networks.vae.config, self._pixels) / 1e12,
            "matmul_tflops": round(peak / 1e12, 3),
            "sides": found,
            "largest_pixel_difference": self._differences(sides),
            "unet_rows_a_second_by_rows_a_call": self._curves(),
            "aims": aims(found, self._options.size, self._device.type, self._is_whole()),
        }

    def _circumstances(self) -> dict[str, Any]:
        options, on_gpu = self._options, self._device.type == "cuda"
        machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
        return {
            "device": torch.cuda.get_device_name(self._device) if on_gpu else machine,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "networks": options.size,
            "toy": options.toy,
            "precision": str(self._networks.unet.dtype),
            "threads": torch.get_num_threads(),
            "draw_threads": options.draw_threads,
            "cells": len(self._plan.cells),
            "samplers": len(options.samplers),
            "scales": options.scales,
            "steps": options.steps,
            "pixels": self._pixels,
            "largest_batch_of_equal_settings": _most_of_equal_settings(self._plan.cells),
            "planned_rows": self._plan.rows(),
            "planned_shared_rows": self._plan.shared_rows(),
        }

    def _is_whole(self) -> bool:
        options = self._options
        asked = tuple(options.samplers), options.scales, options.steps, self._pixels, options.toy
        whole = (JANUARY, SCALES, STEPS, SIZES[options.size].pixels, False)
        return asked == whole and options.precision == "auto"

    def _sides(self) -> Sides:
        """Says on standard error how each went, since a run takes a while."""
        options, cells = self._options, self._plan.cells
        sides: dict[str, Side] = {}

        def measured(name: str, side: Side) -> Side:
            self._say(f"{name}: {side.images} images in {side.seconds:.1f} s")
            sides[name] = side
            Memory(self._device).give_back()  # of networks that only hold themselves
            return side

        asked = measured(FARM, self._by_engine()).asked
        pipeline = Pipeline(self._networks)
        measured(PER_CELL, by_pipeline(pipeline, cells, asked, every_cell=options.every_cell))
        if options.seeds > 1:
            measured(SEEDS, by_pipeline(pipeline, cells, asked, options.seeds))
        if options.compile:
            quick = Pipeline(self._networks, compiled(self._networks.unet))
            measured(COMPILED, by_pipeline(quick, cells, asked, every_cell=options.every_cell))
            measured(COMPILED_FARM, self._by_engine(compiles=True))
        if options.workers and self._device.type == "cpu" and options.size == TINY_CATS:
            folder = look_around(None).checkpoints[TINY_CATS].path
            measured(WORKERS, by_workers(cells, folder, options.workers))
            if options.compile:
                measured(COMPILED_WORKERS, by_workers(cells, folder, options.workers, compiled=True))
        return sides

    def _by_engine(self, compiles: bool = False) -> Side:
        options = self._options
        return by_engine(
            self._plan.cells,
            self._networks,
            self._device,
            options.largest_batch,
            options.draw_threads,
            compiles,
        )

    def _differences(self, sides: Sides) -> dict[str, int | None]:
        """Of the farm's pictures from those of each other side that can be compared with them."""
        same = [cell.number for cell in self._plan.cells if cell.settings.sampler in EXACT]
        ours = sides[FARM].pictures
        others = {name: side.pictures for name, side in sides.items() if name != FARM}
        return {name: largest_difference(ours, theirs, same) for name, theirs in others.items()}

    def _curves(self) -> dict[str, dict[int, float]]:
        """Of the UNet as the farm has it."""
        unet = tuned(own(self._networks), self._device).unet
        ways: dict[str, UNet] = {"eager": plainly(unet)}
        if self._options.compile:
            ways["compiled"] = partial(Compiled(unet, self._device, self._say), full=True)
        measure = partial(
            rows_a_second,
            batches=self._options.curve,
            latents=torch.randn(
                4, self._pixels // 8, self._pixels // 8, device=self._device, dtype=unet.dtype
            ),
            states=torch.randn(77, unet.config.cross_attention_dim, device=self._device, dtype=unet.dtype),
        )
        return {name: measure(way) for name, way in ways.items()}

    @staticmethod
    def _say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _most_of_equal_settings(cells: Sequence[Cell]) -> int:
    """Pictures that one call of diffusers' pipeline can make: of settings that differ in the seed alone."""
    return max(Counter(replace(cell.settings, seed=0) for cell in cells).values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    report = Measurement(options_of(arguments)).report()
    print(json.dumps(report, indent=2))
    print(*lines(report), sep="\n", file=sys.stderr)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line, if no others are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", choices=SIZES, default=TINY_CATS, help="of the networks")
    add("--toy", action="store_true", help="networks of the same blocks with few channels, at 64×64")
    add("--device", default=choose_device(), help="cpu, cuda, mps; the best there is if not given")
    add(
        "--precision",
        choices=("auto", "fp32", "fp16", "bf16"),
        default="auto",
        help="fp32, fp16 or bf16, of all sides; auto is fp16 on a card",
    )
    add("--pixels", type=int, help="of the pictures' sides; those that the networks are made for")
    add("--scales", type=int, default=SCALES, help="CFG scales, from 2 on")
    add("--steps", type=int, default=STEPS)
    add("--samplers", type=lambda text: text.split(", "), default=list(JANUARY), help="separated by ', '")
    add("--seeds", type=int, default=4, help="of a cell in one call of diffusers' pipeline; 1 leaves it out")
    add("--every-cell", action="store_true", help="time all of diffusers' cells, not one of each sampler")
    add("--compile", action="store_true", help="compiled UNets too, which takes a while")
    add("--workers", type=int, default=2, help="of a farm on Ray (tiny-cats on a CPU); 0 leaves it out")
    add("--threads", type=int, default=1, help="of the networks, on a CPU")
    add("--draw-threads", type=int, default=THREADS, help="that draw the farm's noise")
    add("--largest-batch", type=int, help="of the farm; by the device if not given")
    add("--curve", type=int, nargs="+", default=list(BATCHES), help="rows of a call of the UNet alone")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
