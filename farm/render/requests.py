"""What a picture's coroutine asks for: each request is one row of some network's batch."""

from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

Coroutine = Generator[Any, Any, Any]
"""Yields a request, or a tuple of requests to have them answered together; is sent the answer(s)."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Names loaded networks. Rows of equal weights can share a batch.

    Attributes:
        model: the checkpoint's name in the catalog.
        precision: `fp32`, `fp16`, `bf16` or `auto`.
    """

    model: str
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class Share:
    """The answer of a recipe that many coroutines need and the engine runs once.

    Attributes:
        key: equal keys share one answer; it must name everything the answer depends on.
        recipe: makes the coroutine, given a random generator that is derived from the key alone.
    """

    key: Hashable
    recipe: Callable[[torch.Generator], Coroutine]


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """The description of a checkpoint (`farm.render.runner.Model`), loading it if need be."""

    prepares: ClassVar[bool] = True
    weights: Weights

    @property
    def batch_key(self) -> Hashable:
        """Askers of one checkpoint are answered together."""
        return ("open", self.weights)


@dataclass(frozen=True, slots=True, eq=False)
class EncodeText:
    """One chunk of a prompt through the text encoder: `(tokens, channels)`.

    Attributes:
        weights: whose text encoder.
        tokens: ids, begin and end marks and padding included.
        clip_skip: 1 for the last layer, n for the n-th from the end.
    """

    prepares: ClassVar[bool] = True
    weights: Weights
    tokens: tuple[int, ...]
    clip_skip: int

    @property
    def batch_key(self) -> Hashable:
        """Chunks of equal length and depth batch together."""
        return ("encode text", self.weights, len(self.tokens), self.clip_skip)


@dataclass(frozen=True, slots=True, eq=False)
class Predict:
    """One row through the UNet, answered by its raw output in float32, of the input's shape.

    A row with a branch and no features is answered by a pair: its output, and its deep features.

    Attributes:
        weights: whose UNet.
        input: scaled latents `(4, height/8, width/8)`.
        time: training timestep, fractions allowed.
        conditioning: text states `(tokens, channels)`.
        token_merging_ratio: of the tokens that self-attention merges (`farm.render.token_merging`).
        branch: where deep features are taken, or put back (`farm.render.deepcache`); None is nowhere.
        features: deep features of an earlier row `(channels, height, width)`: only what is shallower than
            these is computed.
    """

    prepares: ClassVar[bool] = False
    weights: Weights
    input: torch.Tensor
    time: float
    conditioning: torch.Tensor
    token_merging_ratio: float = 0.0
    branch: int | None = None
    features: torch.Tensor | None = None

    @property
    def batch_key(self) -> Hashable:
        """Rows of equal weights, shapes and kind batch together, whatever their sampler, step or scale."""
        return ("predict", self.weights, self.input.shape, self.conditioning.shape, *self.kind)

    @property
    def kind(self) -> tuple[Hashable, ...]:
        """How it is computed: equal for rows of equal approximations."""
        deep = None if self.features is None else self.features.shape
        return self.token_merging_ratio, self.branch, deep

    @property
    def is_approximate(self) -> bool:
        """Whether it is more than a call of the whole UNet."""
        return self.token_merging_ratio > 0 or self.branch is not None


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """Latents to a picture: a uint8 tensor `(height, width, 3)` on the host.

    Attributes:
        weights: whose VAE.
        latents: `(4, height/8, width/8)`, as the sampler leaves them.
    """

    prepares: ClassVar[bool] = False
    weights: Weights
    latents: torch.Tensor

    @property
    def batch_key(self) -> Hashable:
        """Latents of equal weights and size batch together."""
        return ("decode", self.weights, self.latents.shape)


Request = Open | EncodeText | Predict | Decode
"""What goes into batches. `prepares`: answered before any row, since rows come of it."""
