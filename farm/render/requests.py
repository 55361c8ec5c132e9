"""What a picture's coroutine asks for: each request is one row of some network's batch."""

from collections.abc import Callable, Generator, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from farm.costs import weight_of_shallow
from farm.prompts.patches import OnUnet, Scales
from farm.prompts.vectors import Token
from farm.render.told import Conditioning
from farm.weights.embedding import Embedding
from farm.work import Kind

LATENT_SCALE = 8
"""Pixels of a picture for each point of its latents, along a side."""

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
        is_row: whether it stands for one row of the UNet.
    """

    key: Hashable
    recipe: Callable[[torch.Generator], Coroutine]
    is_row: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """The description of a checkpoint (`farm.render.model.Model`), loading it if need be."""

    prepares: ClassVar[bool] = True
    weights: Weights

    @property
    def batch_key(self) -> Hashable:
        """Askers of one checkpoint are answered together."""
        return ("open", self.weights)

    @property
    def kind(self) -> Kind:
        """What its time hangs on."""
        return Kind("open", *_named(self.weights))


@dataclass(frozen=True, slots=True, eq=False)
class EncodeText:
    """One chunk of a prompt through the text encoders: an `Encoded`.

    Attributes:
        weights: whose text encoders.
        tokens: ids, begin and end marks and padding included, and vectors of embeddings.
        clip_skip: 1 for the last layer, n for the n-th from the end.
        tokens_2: the same for a second encoder, padded in its way; empty where there is but one.
        embeddings: whose vectors are among the tokens, by their keys.
        loras: that act on the text encoders, with their weights.
    """

    prepares: ClassVar[bool] = True
    weights: Weights
    tokens: tuple[Token, ...]
    clip_skip: int
    tokens_2: tuple[Token, ...] = ()
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)
    loras: Scales = ()

    @property
    def batch_key(self) -> Hashable:
        """Chunks of equal length and depth batch together; LoRA can have another weight in each row."""
        loras = tuple(name for name, _ in self.loras)
        return ("encode text", self.weights, len(self.tokens), self.clip_skip, loras)

    @property
    def is_patched(self) -> bool:
        """Whether LoRA act on it."""
        return bool(self.loras)

    @property
    def kind(self) -> Kind:
        """What its time hangs on."""
        return Kind("encode text", *_named(self.weights), tokens=len(self.tokens))


@dataclass(frozen=True, slots=True, eq=False)
class EncodeImage:
    """A picture to latents `(4, height/8, width/8)`: the mean of what the VAE makes of it, in float32.

    A1111 and the pipelines of diffusers draw the latents from the VAE's distribution, which is narrow; its
    mean is the same whoever asks, so that it can be shared.

    Attributes:
        weights: whose VAE.
        pixels: `(height, width, 3)` on the host, 0 to 255, uint8 or float32; both sides are multiples of 8.
        precise: whether the VAE works in fp32, whatever the precision of the weights.
        vae: the name of another one than theirs; empty for theirs.
    """

    prepares: ClassVar[bool] = True
    weights: Weights
    pixels: torch.Tensor
    precise: bool = False
    vae: str = ""

    @property
    def batch_key(self) -> Hashable:
        """Pictures of equal weights and size batch together."""
        height, width, _ = self.pixels.shape
        latents = torch.Size((height // LATENT_SCALE, width // LATENT_SCALE))
        return ("encode image", self.weights, self.vae, latents, self.precise)

    @property
    def kind(self) -> Kind:
        """What its time hangs on."""
        height, width, _ = self.pixels.shape
        return Kind("encode image", *_named(self.weights), width, height)


@dataclass(frozen=True, slots=True, eq=False)
class Predict:
    """One row through the UNet, answered by its raw output `(4, height/8, width/8)` in float32.

    A row with a branch and no features is answered by a pair: its output, and its deep features.

    Attributes:
        weights: whose UNet.
        input: scaled latents `(4, height/8, width/8)`; with more channels behind these, if it takes any.
        time: training timestep, fractions allowed.
        conditioning: what it is told.
        token_merging_ratio: of the tokens that self-attention merges (`farm.render.token_merging`).
        branch: where deep features are taken, or put back (`farm.render.deepcache`); None is nowhere.
        features: deep features of an earlier row `(channels, height, width)`: only what is shallower than
            these is computed.
        patches: LoRA and hypernetworks that act on the UNet, with their weights in this row.
    """

    prepares: ClassVar[bool] = False
    weights: Weights
    input: torch.Tensor
    time: float
    conditioning: Conditioning
    token_merging_ratio: float = 0.0
    branch: int | None = None
    features: torch.Tensor | None = None
    patches: OnUnet = OnUnet()

    @property
    def batch_key(self) -> Hashable:
        """Rows of equal weights, shapes and kind batch together, whatever their sampler, step or scale.

        Patches can have another weight in each row.

        What goes with the states has the same shape in all rows of the same weights.
        """
        told = self.conditioning.states.shape
        return ("predict", self.weights, self.input.shape, told, *self.approximation, self.patches.names)

    @property
    def approximation(self) -> tuple[Hashable, ...]:
        """How it is computed: equal for rows of equal approximations."""
        deep = None if self.features is None else self.features.shape
        return self.token_merging_ratio, self.branch, deep

    @property
    def is_patched(self) -> bool:
        """Whether LoRA or hypernetworks act on it."""
        return any(self.patches)

    @property
    def is_plain(self) -> bool:
        """Whether it is a call of the whole UNet and nothing more."""
        return not (self.is_approximate or self.is_patched)

    @property
    def is_approximate(self) -> bool:
        """Whether it is more than a call of the whole UNet."""
        return self.token_merging_ratio > 0 or self.branch is not None

    @property
    def kind(self) -> Kind:
        """What its time hangs on."""
        how = _how(self) if self.is_approximate else ""
        is_shallow = self.branch is not None and self.features is not None
        weight = weight_of_shallow(self.branch or 0) if is_shallow else 1.0
        tokens = len(self.conditioning.states)
        return Kind("predict", *_named(self.weights), *_pixels(self.input), tokens, how, weight)


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """Latents to a picture: a uint8 tensor `(height, width, 3)` on the host.

    Attributes:
        weights: whose VAE.
        latents: `(4, height/8, width/8)`, as the sampler leaves them.
        precise: whether the VAE works in fp32, whatever the precision of the weights.
        vae: the name of another one than theirs; empty for theirs.
    """

    prepares: ClassVar[bool] = False
    weights: Weights
    latents: torch.Tensor
    precise: bool = False
    vae: str = ""

    @property
    def batch_key(self) -> Hashable:
        """Latents of equal weights and size batch together."""
        return ("decode", self.weights, self.vae, self.latents.shape, self.precise)

    @property
    def kind(self) -> Kind:
        """What its time hangs on."""
        return Kind("decode", *_named(self.weights), *_pixels(self.latents))


@dataclass(frozen=True, slots=True, eq=False)
class Fetch:
    """A number on the device, which is answered by a `float`, sooner or later.

    Attributes:
        value: a tensor of one element.
    """

    prepares: ClassVar[bool] = True
    value: torch.Tensor

    @property
    def batch_key(self) -> Hashable:
        """All that are asked for go together."""
        return ("fetch",)

    @property
    def kind(self) -> Kind:
        """What its time hangs on."""
        return Kind("fetch")


def _how(row: Predict) -> str:
    merged = f"{row.token_merging_ratio:.0%} merged" if row.token_merging_ratio else ""
    shallow = "full, to be kept" if row.features is None else f"shallow, branch {row.branch}"
    deep = "" if row.branch is None else shallow
    return ", ".join(part for part in (merged, deep) if part)


def _named(weights: Weights) -> tuple[str, str]:
    return weights.model, weights.precision


def _pixels(latents: torch.Tensor) -> tuple[int, int]:
    height, width = latents.shape[-2:]
    return width * LATENT_SCALE, height * LATENT_SCALE


OfNetworks = Open | EncodeText | EncodeImage | Predict | Decode
"""What some network answers, or tells of itself."""

Request = OfNetworks | Fetch
"""What goes into batches. `prepares`: answered before any row, since rows come of it."""
