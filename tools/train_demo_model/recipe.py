"""How much of everything: the sizes, step counts and rates of a training."""

from __future__ import annotations

from dataclasses import dataclass, field

from .clip import ClipSize
from .training import Plan
from .unet import UnetSize
from .vae import VaeSize


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training makes.

    The shipped model's card says how many of these steps it was given.
    """

    pictures: int = 24_000
    held_out: int = 1_000
    picture_seed: int = 7
    held_out_seed: int = 8
    captions: int = 3
    caption_seed: int = 5
    clip_size: ClipSize = field(default_factory=ClipSize)
    vae_size: VaeSize = field(default_factory=VaeSize)
    unet_size: UnetSize = field(default_factory=UnetSize)
    clip: Plan = Plan(steps=620, batch=96, rate=1e-3, decay=0.7, average=0.99)
    vae: Plan = Plan(steps=4_000, batch=8, rate=1.2e-3, decay=0.5, weight_decay=1e-3)
    decoder: Plan = Plan(steps=6_000, batch=8, rate=1e-3, decay=0.6, weight_decay=1e-3)
    unet: Plan = Plan(steps=6_000, batch=32, rate=1e-3, decay=0.5, average=0.999)
    judge: Plan = Plan(steps=1_500, batch=64, rate=2e-3, average=0.99)
    guidance: tuple[float, ...] = (1, 3, 5, 7, 15, 25)
    step_counts: tuple[int, ...] = (3, 5, 10, 20)
    prompts: int = 64


def toy_recipe() -> Recipe:
    """A few steps of everything, for tests: the files are right, the pictures are noise."""
    return Recipe(
        pictures=32,
        held_out=8,
        captions=1,
        clip_size=ClipSize(
            width=32, heads=2, text_layers=1, image_layers=1, text_feedforward=32, image_feedforward=32
        ),
        vae_size=VaeSize(channels=(8, 8, 8, 8), groups=4),
        unet_size=UnetSize(channels=(16, 16), groups=4, heads=2, context=32),
        clip=Plan(steps=2, batch=4, rate=1e-3),
        vae=Plan(steps=2, batch=2, rate=1e-3),
        decoder=Plan(steps=2, batch=2, rate=1e-3),
        unet=Plan(steps=2, batch=4, rate=1e-3),
        judge=Plan(steps=2, batch=4, rate=1e-3),
        guidance=(1, 5),
        step_counts=(2,),
        prompts=2,
    )
