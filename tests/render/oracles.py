"""k-diffusion's sampling functions, and the means to drive ours against them."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
import torch

from farm.questions import Denoise, Draw, Read
from farm.render.parameterization import Parameterization, parameterization_of

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


def stable_diffusion() -> Parameterization:
    return parameterization_of(STABLE_DIFFUSION)


def k_diffusion(module: str) -> ModuleType:
    """A module of k-diffusion, without its package's own imports: torchvision, kornia, clean-fid and more."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        pytest.skip("k-diffusion is not installed (pip install --no-deps k-diffusion)")
    package = ModuleType("k_diffusion")
    package.__spec__, package.__path__ = spec, list(spec.submodule_search_locations or ())
    sys.modules.setdefault("k_diffusion", package)
    with _stubs("torchvision", "torchvision.transforms", "torchdiffeq", "torchsde"):
        return importlib.import_module(f"k_diffusion.{module}")


@contextmanager
def _stubs(*names: str) -> Iterator[None]:
    absent = [name for name in names if importlib.util.find_spec(name.split(".")[0]) is None]
    for name in absent:
        sys.modules[name] = MagicMock()
    try:
        yield
    finally:  # others ask whether these are installed
        for name in absent:
            del sys.modules[name]


Denoiser = Callable[[torch.Tensor, float], torch.Tensor]
"""The denoised latents, of latents and their sigma."""


def bent(x: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
    """A smooth denoiser that bends with x and with sigma.

    That of real data would do worse here: near sigma 0 it gives the nearest picture whatever a sampler did.
    """
    return 0.8 * torch.sin(1.3 * x / (1 + sigma**2) ** 0.5) + 0.1 * x / (1 + sigma)


class Recorded:
    """Noise that was drawn beforehand, for ours and for theirs; remembers for which steps it was drawn."""

    def __init__(self, draws: Iterable[torch.Tensor]) -> None:
        self._draws = iter(draws)
        self.steps: list[tuple[Any, Any]] = []

    def draw(self, sigma: float | None = None, lower: float | None = None) -> torch.Tensor:
        self.steps.append((sigma, lower))
        return next(self._draws)

    def __call__(self, sigma: Any, sigma_next: Any) -> torch.Tensor:
        return self.draw(float(sigma), float(sigma_next))

    @contextmanager
    def as_torch_draws(self) -> Iterator[None]:
        """Lets `torch.randn_like` give it, for functions that are handed no noise."""
        with patch("torch.randn_like", lambda _: self.draw()):
            yield


@contextmanager
def in_float64() -> Iterator[None]:
    """Lets k-diffusion compute its scalars in float64 too, which it makes of the default type."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def drive(sampling: Any, denoiser: Denoiser) -> tuple[torch.Tensor, list[Denoise]]:
    """Runs a sampler on a denoiser; returns what it returned and what it asked."""
    asked: list[Denoise] = []

    def answered(question: Any) -> Any:
        if isinstance(question, Draw):
            return question.source.draw(question.sigma, question.lower)
        if isinstance(question, Read):
            return float(question.value)
        asked.append(question)
        return denoiser(question.x, question.sigma)

    answer: Any = None
    while True:
        try:
            request = sampling.send(answer)
        except StopIteration as end:
            return end.value, asked
        together = isinstance(request, tuple)
        answer = [answered(one) for one in request] if together else answered(request)
