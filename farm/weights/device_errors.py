"""What a device says when it cannot go on."""

import torch

_TOO_LITTLE = (
    "out of memory",  # CUDA, MPS
    "can't allocate memory",  # the CPU's allocator
    "cannot allocate memory",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",  # its workspace did not fit
    "cudnn_status_alloc_failed",
    "cudnn_status_not_initialized",
    "allocation_failed",  # cuDNN 9, of the device's memory and of the host's
    "unable to find an engine",  # cuDNN, when there is no room for any of them
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had too little memory; only CUDA's allocator has its own exception."""
    text = str(error).lower()
    spoken = isinstance(error, (RuntimeError, OSError)) and any(words in text for words in _TOO_LITTLE)
    return spoken or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def is_fatal(error: BaseException) -> bool:
    """Whether the device can do nothing more for this process, as after a kernel's illegal access."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def is_of_device(error: BaseException) -> bool:
    """Whether it is the device that says so, whatever it was asked for."""
    return isinstance(error, torch.AcceleratorError) or is_out_of_memory(error)
