"""What a device can do: a large product of matrices, and the UNet alone at each number of rows."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

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
    unet: Any,
    batches: Sequence[int],
    pixels: int,
    device: torch.device,
    dtype: torch.dtype,
    least: float = 0.5,
) -> dict[int, float]:
    """Of the UNet alone, by the rows of a call; those that do not fit into memory are left out.

    Args:
        unet: as it is or compiled.
        batches: numbers of rows.
        pixels: of the pictures' sides.
        device: of the network.
        dtype: of the network.
        least: seconds that each number is measured for.
    """
    found: dict[int, float] = {}
    channels, side = unet.config.cross_attention_dim, pixels // 8
    for rows in batches:
        latents = torch.randn(rows, 4, side, side, device=device, dtype=dtype)
        states = torch.randn(rows, 77, channels, device=device, dtype=dtype)
        times = torch.full((rows,), 500.0, device=device)

        @torch.inference_mode()
        def call(latents: Any = latents, times: Any = times, states: Any = states) -> None:
            unet(latents, times, encoder_hidden_states=states, return_dict=False)

        try:
            found[rows] = round(rows / seconds_of(call, device, least), 1)
        except torch.OutOfMemoryError:
            break
    return found


def seconds_of(call: Callable[[], object], device: torch.device, least: float = 0.5) -> float:
    """Of one call: the mean over at least so long, after two calls that do not count."""
    call(), call()
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
