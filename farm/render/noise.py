"""A cell's own noise: it depends on the cell's settings alone, never on the neighbours in the batch.

What seeds, variations and resized seeds mean is as in A1111 (its create_random_tensors and, later, ImageRNG),
so that noise can be made again; only its interpolation of nearly equal noise, which runs backwards, is not
copied.
"""

from collections.abc import Callable, Hashable
from typing import Protocol

import torch

from farm.cell import Settings
from farm.questions import NoiseSource
from farm.render.brownian import BrownianNoise
from farm.render.device import onto
from farm.render.philox import PhiloxNormals
from farm.sampling import Sampler

PIXELS = 8
"""Of the picture along one side of a point of the latents."""

NEARLY_PARALLEL = 0.9995
"""Cosine above which the way along the sphere is taken as straight."""


class Normals(Protocol):
    """A generator of standard normal numbers."""

    def draw(self, shape: tuple[int, ...]) -> torch.Tensor:
        """The next tensor, float32 on the CPU."""
        ...


class TorchNormals:
    """PyTorch's generator on the CPU: A1111's `CPU` source, and what users of diffusers draw with.

    Attributes:
        generator: it.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def draw(self, shape: tuple[int, ...]) -> torch.Tensor:
        """The next tensor, float32 on the CPU."""
        return torch.randn(shape, generator=self.generator)


def normals(rng: str, seed: int) -> Normals:
    """A fresh generator.

    Args:
        rng: `cpu` or `nv`, as in `Settings.rng`.
        seed: modulo 2⁶⁴.
    """
    makers: dict[str, Callable[[int], Normals]] = {"cpu": TorchNormals, "nv": PhiloxNormals}
    return makers[rng](seed % 2**64)


class SeededNoise:
    """Normal numbers in the order in which they are asked for.

    Args:
        seed: modulo 2⁶⁴.
        shape: of the latents `(4, height/8, width/8)`.
        device: where the noise is needed.
        rng: as in `Settings.rng`.
    """

    def __init__(self, seed: int, shape: tuple[int, ...], device: torch.device, rng: str = "cpu") -> None:
        self.normals = normals(rng, seed)
        self._shape = shape
        self._device = device

    def draw(self, sigma: float | None = None, lower: float | None = None) -> torch.Tensor:
        """The next standard normal tensor of the latents' shape, on the device."""
        return onto(self.normals.draw(self._shape), self._device)


class CellNoise:
    """All the noise of one cell, each kind where A1111 takes it from.

    The seed's generator draws the initial noise and goes on with the sampler's. With `eta_noise_seed_delta`
    the sampler's noise comes from a fresh generator with seed + delta instead. Brownian paths are seeded with
    the seed alone, whatever the delta.

    Args:
        settings: resolved.
        shape: of the latents `(4, height/8, width/8)`.
        device: where the noise is needed.

    Attributes:
        initial: source of the noise that a picture starts from; drawn once, before any other.
    """

    def __init__(self, settings: Settings, shape: tuple[int, ...], device: torch.device) -> None:
        self._settings = settings
        self._shape = shape
        self._device = device
        self._own = SeededNoise(settings.seed, shape, device, settings.rng)
        self.initial: NoiseSource = InitialNoise(settings, shape, device, self._own.normals)

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Names everything that the initial noise depends on."""
        settings = self._settings
        variation = (settings.variation_seed, settings.variation_strength)
        resize = (settings.seed_resize_from_width, settings.seed_resize_from_height)
        return (settings.seed, self._shape, *variation, *resize, settings.rng)

    def for_sampler(self, row: Sampler, sigmas: tuple[float, ...]) -> NoiseSource:
        """What a sampler draws from: for those that are not Brownian a `SeededNoise`.

        Args:
            row: of the sampler.
            sigmas: its schedule.
        """
        settings = self._settings
        if row.brownian:
            randn = None if settings.rng == "cpu" else self._randn
            return BrownianNoise(settings.seed, self._shape, sigmas, self._device, randn)
        if settings.eta_noise_seed_delta:
            reseeded = settings.seed + settings.eta_noise_seed_delta
            return SeededNoise(reseeded, self._shape, self._device, settings.rng)
        return self._own

    @property
    def generator(self) -> torch.Generator:
        """What schedulers of diffusers draw from by themselves: PyTorch's, whatever made the initial noise.

        With `rng: cpu` it is the one that drew the initial noise, as in a pipeline of diffusers.
        """
        delta, own = self._settings.eta_noise_seed_delta, self._own.normals
        if delta == 0 and isinstance(own, TorchNormals):
            return own.generator
        return TorchNormals((self._settings.seed + delta) % 2**64).generator

    def _randn(self, shape: tuple[int, ...], seed: int) -> torch.Tensor:
        return normals(self._settings.rng, seed).draw(shape)


class InitialNoise:
    """The noise that a picture starts from: of its seed, its variation and the size its seed was found at.

    Args:
        settings: resolved.
        shape: of the latents `(4, height/8, width/8)`.
        device: where the noise is needed.
        own: the seed's fresh generator. It draws one tensor of the picture's size, whatever becomes of it.
    """

    def __init__(
        self, settings: Settings, shape: tuple[int, ...], device: torch.device, own: Normals
    ) -> None:
        self._settings = settings
        self._shape = shape
        self._device = device
        self._own = own

    def draw(self, sigma: float | None = None, lower: float | None = None) -> torch.Tensor:
        """A standard normal tensor of the latents' shape, on the device."""
        settings, shape = self._settings, self._seed_shape()
        whole = self._own.draw(self._shape)
        noise = whole if shape == self._shape else normals(settings.rng, settings.seed).draw(shape)
        if settings.variation_strength:
            other = normals(settings.rng, settings.variation_seed).draw(shape)
            noise = slerp(noise, other, settings.variation_strength)
        if shape != self._shape:
            noise = in_the_middle(noise, whole)
        return onto(noise, self._device)

    def _seed_shape(self) -> tuple[int, ...]:
        """Of the noise that the seed stands for: another size counts if both its sides are given."""
        height, width = self._settings.seed_resize_from_height, self._settings.seed_resize_from_width
        if height > 0 and width > 0:
            return (*self._shape[:-2], height // PIXELS, width // PIXELS)
        return self._shape


def slerp(start: torch.Tensor, end: torch.Tensor, strength: float) -> torch.Tensor:
    """A point on the way from one noise to another along the sphere (Shoemake 1985).

    Angles are taken between columns, along the height, as in A1111.

    Args:
        start: `(channels, height, width)`.
        end: of the same shape.
        strength: 0 is `start`, 1 is `end`.
    """
    straight = torch.lerp(start, end, strength)
    lengths = start.norm(dim=-2, keepdim=True) * end.norm(dim=-2, keepdim=True)
    cosine = (start * end).sum(-2, keepdim=True) / lengths
    if cosine.mean() > NEARLY_PARALLEL:
        return straight
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    curved = ((1 - strength) * angle).sin() / sine * start + (strength * angle).sin() / sine * end
    return torch.where(cosine.abs() < 1, curved, straight)


def in_the_middle(noise: torch.Tensor, ground: torch.Tensor) -> torch.Tensor:
    """Noise laid over the middle of `ground`, cut at its edges where it is larger; both `(channels, h, w)`.

    Where the sizes differ by an odd number it is shifted and cut as A1111 does.
    """
    (top, from_top), (left, from_left) = (
        _overlap(size, given) for size, given in zip(ground.shape[-2:], noise.shape[-2:])
    )
    laid = ground.clone()
    laid[..., top, left] = noise[..., from_top, from_left]
    return laid


def _overlap(size: int, given: int) -> tuple[slice, slice]:
    """Along one side: what is covered, and by which part."""
    shift = (size - given) // 2
    length = given + 2 * min(shift, 0)
    return slice(max(shift, 0), max(shift, 0) + length), slice(max(-shift, 0), max(-shift, 0) + length)
