"""A sheet of samplers × CFG scales: the farm's mixed batches beside one diffusers pipeline call per cell.

`python -m benchmarks.sheet` renders all samplers of A1111's list of January 2023 at so many CFG scales with
tiny-cats; `--size sd15` with networks of the size of Stable Diffusion 1.5 and random weights, for a GPU.
It prints JSON. diffusers renders one cell of each sampler, whose time counts for its whole row, since the
scale changes no cost; samplers that diffusers lacks are stood in for by one that asks the network as often.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from farm.cell import Settings
from farm.cli.jobs import look_around
from farm.costs import evaluations
from farm.render.capacity import Capacity
from farm.render.device import choose_device, dtype_for
from farm.render.draws import THREADS, Draws
from farm.render.engine import Engine
from farm.render.recipes import text_to_image
from farm.render.requests import Predict, Request
from farm.render.runner import Runner
from farm.resolving import resolved
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks, load_checkpoint

JANUARY = (
    "Euler a", "Euler", "LMS", "Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE", "DPM fast",
    "DPM adaptive", "LMS Karras", "DPM2 Karras", "DPM2 a Karras", "DPM++ 2S a Karras", "DPM++ 2M Karras",
    "DPM++ SDE Karras", "DDIM", "PLMS",
)  # fmt: skip

THEIRS = {
    "Euler a": "EulerAncestralDiscrete", "Euler": "EulerDiscrete", "LMS": "LMSDiscrete",
    "Heun": "HeunDiscrete", "DPM2": "KDPM2Discrete", "DPM2 a": "KDPM2AncestralDiscrete",
    "DPM++ 2M": "DPMSolverMultistep", "DPM++ SDE": "DPMSolverSDE", "DDIM": "DDIM", "PLMS": "PNDM",
}  # fmt: skip
"""Schedulers of diffusers, of which each step asks as often as ours; others are stood in for by Euler."""

TEXTS = {"prompt": "portrait of beautiful cat", "negative_prompt": "nudity", "seed": 3805052747}
WARM_UP = 64
"""Cells before the clock runs."""

MATRIX = 8192
BATCHES = (1, 2, 4, 8, 16, 32, 64)


def of_tiny_cats(device: torch.device) -> Networks:
    """The included model."""
    checkpoint = look_around(None).checkpoints["tiny-cats"]
    return load_checkpoint(checkpoint.path, device, dtype_for("auto", device))


def of_stable_diffusion_15(device: torch.device) -> Networks:
    """Random weights in networks of the size of Stable Diffusion 1.5; the tokenizer is tiny-cats'."""
    small, dtype = of_tiny_cats(torch.device("cpu")), dtype_for("auto", device)
    torch.manual_seed(0)
    channels = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    words = {
        name: getattr(small.text_encoder.config, name)
        for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    }
    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, **words
    )
    with device:
        networks: tuple[Any, ...] = (
            UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
            AutoencoderKL(**channels, **blocks, sample_size=512),
            CLIPTextModel(text),
        )
    unet, vae, encoder = (network.to(device, dtype).eval().requires_grad_(False) for network in networks)
    return Networks(unet, vae, encoder, small.tokenizer, small.scheduler_config)


SIZES: dict[str, Callable[[torch.device], Networks]] = {
    "tiny-cats": of_tiny_cats,
    "sd15": of_stable_diffusion_15,
}


def cells_of(samplers: Sequence[str], scales: int, steps: int, pixels: int) -> list[Settings]:
    """Each sampler at the CFG scales 2, 3, …"""
    common = {"model": "m", "steps": steps, "width": pixels, "height": pixels, **TEXTS}
    return [
        resolved({**common, "sampler": name, "cfg_scale": 2 + scale}, BUILT_IN)
        for name in samplers
        for scale in range(scales)
    ]


class Counting(Runner):
    """Counts the calls of the UNet, and their rows."""

    calls = rows = 0

    def run(self, requests: list[Request]) -> list[Any]:
        """As any runner."""
        if isinstance(requests[0], Predict):
            self.calls, self.rows = self.calls + 1, self.rows + len(requests)
        return super().run(requests)


def by_farm(
    cells: Sequence[Settings], networks: Networks, device: torch.device, draw_threads: int = THREADS
) -> dict[str, Any]:
    """All cells in mixed batches: seconds, and what the UNet did in them."""
    runner = Counting(lambda *_: networks, device)
    engine = Engine(runner, Capacity(device), draws=Draws(draw_threads))
    started = time.perf_counter()
    for number, cell in enumerate(cells):
        engine.submit(number, text_to_image(cell))
    failures = []
    while engine.in_flight:
        failures += [finished.error for finished in engine.step() if finished.error is not None]
    seconds = time.perf_counter() - started
    engine.close()
    if failures:
        raise RuntimeError(f"{len(failures)} cells failed, the first with: {failures[0]}")
    return {"seconds": seconds, "rows": runner.rows, "calls": runner.calls}


def by_pipeline(cell: Settings, networks: Networks) -> float:
    """Seconds of one pipeline call."""
    name = THEIRS.get(cell.sampler)
    scheduler = getattr(diffusers, f"{name or 'EulerDiscrete'}Scheduler").from_config(
        networks.scheduler_config, use_karras_sigmas=cell.schedule == "karras"
    )
    pipeline: Any = StableDiffusionPipeline(
        networks.vae, networks.text_encoder, networks.tokenizer, networks.unet, scheduler, None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    started = time.perf_counter()
    pipeline(
        cell.prompt,
        negative_prompt=cell.negative_prompt,
        num_inference_steps=cell.steps if name else evaluations(cell),
        guidance_scale=cell.cfg_scale,
        width=cell.width,
        height=cell.height,
        generator=torch.Generator().manual_seed(cell.seed),
    )
    return time.perf_counter() - started


class Network:
    """The UNet alone.

    Args:
        networks: whose.
        pixels: of the pictures' side.
    """

    def __init__(self, networks: Networks, pixels: int) -> None:
        self._unet = networks.unet
        self._side = pixels // 8
        self._channels = networks.unet.config.cross_attention_dim

    @torch.inference_mode()
    def call(self, batch: int) -> None:
        """One call of so many rows."""
        device, dtype = self._unet.device, self._unet.dtype
        self._unet(
            torch.randn(batch, 4, self._side, self._side, device=device, dtype=dtype),
            torch.full((batch,), 500.0, device=device),
            encoder_hidden_states=torch.randn(batch, 77, self._channels, device=device, dtype=dtype),
            return_dict=False,
        )

    def flops(self) -> int:
        """Floating-point operations of a row, multiply and add counted as two."""
        with FlopCounterMode(display=False) as counter:
            self.call(1)
        return int(counter.get_total_flops())


def seconds_of(call: Callable[[], object], device: torch.device, least: float = 0.5) -> float:
    """Of one call: the mean over at least so long, after two calls that do not count."""
    call(), call()
    _finish(device)
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < least:
        call()
        _finish(device)
        calls += 1
    return (time.perf_counter() - started) / calls


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_flops(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Of a large product of matrices, a second."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: left @ right, device)


def main() -> None:
    """Measures and prints."""
    options = _options()
    device = torch.device(choose_device())
    if device.type == "cpu":
        torch.set_num_threads(1)
    networks = SIZES[options.size](device)
    cells = cells_of(options.samplers.split(", "), options.scales, options.steps, options.pixels)
    warm_up = [replace(cells[0], steps=2, seed=seed) for seed in range(WARM_UP)]
    by_farm(warm_up, networks, device)
    farm = by_farm(cells, networks, device, options.draw_threads)
    by_pipeline(warm_up[0], networks)
    theirs = {
        cell.sampler + " " + cell.schedule: by_pipeline(cell, networks) for cell in cells[:: options.scales]
    }
    print(json.dumps(_report(options, networks, cells, farm, theirs), indent=2))


def _report(
    options: argparse.Namespace,
    networks: Networks,
    cells: Sequence[Settings],
    farm: dict[str, Any],
    theirs: dict[str, float],
) -> dict[str, Any]:
    device, network = networks.unet.device, Network(networks, options.pixels)
    flops = network.flops()
    peak = matmul_flops(device, networks.unet.dtype, MATRIX if device.type == "cuda" else 1024)
    rows_a_second = farm["rows"] / farm["seconds"]
    per_cell = sum(theirs.values()) * options.scales
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "device": card or f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "networks": options.size,
        "precision": str(networks.unet.dtype),
        "cells": len(cells),
        "pixels": options.pixels,
        "steps": options.steps,
        "draw_threads": options.draw_threads,
        "farm_seconds": round(farm["seconds"], 1),
        "farm_images_a_second": round(len(cells) / farm["seconds"], 2),
        "farm_rows": farm["rows"],
        "farm_rows_a_call": round(farm["rows"] / farm["calls"], 1),
        "farm_rows_a_second": round(rows_a_second, 1),
        "diffusers_seconds": round(per_cell, 1),
        "times_faster_than_diffusers_per_cell": round(per_cell / farm["seconds"], 2),
        "diffusers_seconds_a_cell": {name: round(seconds, 3) for name, seconds in theirs.items()},
        "tflop_a_row": round(flops / 1e12, 4),
        "matmul_tflops": round(peak / 1e12, 2),
        "model_flops_utilisation": round(rows_a_second * flops / peak, 3),
        "network_rows_a_second_by_batch": {
            batch: round(batch / seconds_of(lambda batch=batch: network.call(batch), device), 1)  # type: ignore[misc]
            for batch in BATCHES
            if batch <= options.largest_batch
        },
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="tiny-cats")
    parser.add_argument("--pixels", type=int, default=64, help="of the pictures' sides")
    parser.add_argument("--scales", type=int, default=11, help="CFG scales, from 2 on")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--samplers", default=", ".join(JANUARY), help="a list, separated by commas")
    parser.add_argument("--draw-threads", type=int, default=THREADS, help="that draw noise")
    parser.add_argument("--largest-batch", type=int, default=16, help="of the network alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
