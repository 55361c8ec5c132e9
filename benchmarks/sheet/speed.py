"""What a device can do: a large product of matrices, and the UNet alone at each number of rows."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from farm.render.compiled import SEEN, UNet

BATCHES = (1, 2, 4, 8, 16, 32, 64)

MATRIX = {"cuda": 8192}
"""Sides of the matrices; large enough that nothing but the product counts."""

CPU_MATRIX = 1024


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large product of matrices."""
    side = MATRIX.get(device.type, CPU_MATRIX)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: left @ right, device)


def rows_a_second(
    unet: UNet, batches: Sequence[int], latents: torch.Tensor, states: torch.Tensor
) -> dict[int, float]:
    """Of the UNet alone, by the rows of a call; those that do not fit into memory are left out.

    Args:
        unet: as it is or compiled.
        batches: numbers of rows.
        latents: of a row `(4, height/8, width/8)`, on the network's device and in its type.
        states: of a row `(tokens, channels)`, likewise.
    """
    found: dict[int, float] = {}
    for rows in batches:
        inputs = latents.expand(rows, -1, -1, -1).contiguous()
        times = torch.full((rows,), 500.0, device=latents.device)
        call = torch.inference_mode()(partial(unet, inputs, times, states.expand(rows, -1, -1).contiguous()))
        try:
            found[rows] = round(rows / seconds_of(call, latents.device, warm_up=SEEN + 2), 1)
        except torch.OutOfMemoryError:
            break
    return found


def seconds_of(
    call: Callable[[], object], device: torch.device, least: float = 0.5, warm_up: int = 2
) -> float:
    """Of one call: the mean over at least so long.

    Args:
        call: to measure.
        device: that it runs on.
        least: seconds to measure for.
        warm_up: calls before, that do not count.
    """
    for _ in range(warm_up):
        call()
    finish(device)
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < least:
        call()
        finish(device)
        calls += 1
    return (time.perf_counter() - started) / calls


def finish(device: torch.device) -> None:
    """Waits until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
