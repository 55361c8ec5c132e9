"""What to compute on."""

import torch

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def choose_device() -> str:
    """`cuda`, `mps` or `cpu`: the best of what is there."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def dtype_for(precision: str, device: torch.device) -> torch.dtype:
    """The networks' type: `auto` is fp16 on a GPU and fp32 on a CPU."""
    if precision == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    return PRECISIONS[precision]
