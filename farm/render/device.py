"""What to compute on."""

import os
import platform
from pathlib import Path

import torch

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def choose_device() -> str:
    """`cuda`, `mps` or `cpu`: the best of what is there."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def leave_cores_free(device: torch.device) -> None:
    """Lets the networks of this thread have half of a CPU's cores, unless OMP_NUM_THREADS says how many.

    The others draw noise and encode pictures. A call of a network takes as long as the slowest of its
    threads: if one must wait for a core, all do.
    """
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), _cores() // 2)))


def name_of(device: torch.device) -> str:
    """Equal for devices that take about as long; of a CPU, with as many threads as this one has."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} {'thread' if threads == 1 else 'threads'}"


def _processor() -> str:
    """What the CPU is called; Python itself does not know it on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine() or "CPU"


def _cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def onto(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on a device; on NVIDIA's cards without waiting for the copy.

    For that it must come from page-locked memory, or the driver may wait for what is queued before it. On
    Apple's it is waited for: such a copy reads its source later, when it may be gone
    (https://github.com/pytorch/pytorch/issues/139550, 189690).
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def dtype_for(precision: str, device: torch.device) -> torch.dtype:
    """The networks' type: `auto` is fp16 on a GPU and fp32 on a CPU."""
    if precision == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    return PRECISIONS[precision]
