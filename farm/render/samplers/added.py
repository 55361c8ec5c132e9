"""Samplers of plugins: whatever goes wrong in a stranger's generator, the cell's reason names it."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from farm.errors import CellFailed, described
from farm.questions import Denoise, Draw, Output, Read
from farm.render.samplers.sampling import Sampling
from farm.weights.device_errors import is_of_device


def named(name: str, begin: Callable[[], Any], shape: torch.Size) -> Sampling:
    """Runs a sampler of a plugin, and passes on what it asks.

    Args:
        name: of its row.
        begin: calls its algorithm.
        shape: of the latents.

    Raises:
        CellFailed: it is no generator, raises something, asks for what nobody answers, or does not return
            latents.
    """
    with _naming(name):
        sampling = begin()
    if not isinstance(sampling, Generator):
        raise CellFailed(f"sampler {name!r} gave {_kind(sampling)} where it should yield questions")
    answers: Any = None
    while True:
        try:
            with _naming(name):
                asked = _checked(sampling.send(answers), shape)
        except StopIteration as end:
            return _latents(name, end.value, shape)
        answers = yield asked


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except (StopIteration, CellFailed):
        raise
    except Exception as error:
        if is_of_device(error):
            raise
        raise CellFailed(f"sampler {name!r} failed: {described(error)}") from error


def _checked(asked: Any, shape: torch.Size) -> Any:
    """Questions that can be answered.

    Raises:
        TypeError: if one cannot.
    """
    for question in asked if isinstance(asked, tuple) else (asked,):
        match question:
            case Draw():
                continue
            case Read(value=value):
                if not isinstance(value, torch.Tensor) or value.numel() != 1:
                    raise TypeError(f"it reads {_kind(value)}, not a tensor of one number")
            case Denoise(x=latents) | Output(input=latents):
                if not isinstance(latents, torch.Tensor) or latents.shape != shape:
                    raise TypeError(f"it asks about {_kind(latents)}, not latents {tuple(shape)}")
            case _:
                raise TypeError(f"it yields {_kind(question)}, not Denoise, Output, Draw or Read")
    return asked


def _latents(name: str, returned: Any, shape: torch.Size) -> torch.Tensor:
    if not isinstance(returned, torch.Tensor) or returned.shape != shape:
        raise CellFailed(f"sampler {name!r} returned {_kind(returned)}, not latents {tuple(shape)}")
    return returned


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a Tensor {tuple(value.shape)}"
    return "nothing" if value is None else f"a {type(value).__name__}"
