"""How a cell becomes a picture: coroutines that ask for whatever they need of a network."""

from collections.abc import Hashable
from functools import partial

import torch

from farm.cell import Settings
from farm.errors import CellFailed
from farm.render.guidance import Condition, Guidance, Origin, conditions_for, guided
from farm.render.noise import SeededNoise
from farm.render.requests import Coroutine, Decode, Draw, EncodeText, Open, Share, Weights
from farm.render.runner import Model
from farm.render.samplers import SAMPLERS
from farm.render.schedules import sigmas_for
from farm.sampling import find_sampler

LATENT_CHANNELS = 4
LATENT_SCALE = 8


def text_to_image(settings: Settings) -> Coroutine:
    """Renders a cell; returns uint8 pixels `(height, width, 3)`."""
    weights = weights_of(settings)
    model: Model = yield Open(weights)
    _check_clip_skip(settings, model)
    conditions = yield from _conditions(settings, weights, model)
    latents = yield from _sample(settings, weights, model, conditions)
    return (yield Decode(weights, latents))


def weights_of(settings: Settings) -> Weights:
    """The networks that a cell asks."""
    return Weights(settings.model, settings.precision)


def _sample(
    settings: Settings, weights: Weights, model: Model, conditions: tuple[Condition, ...]
) -> Coroutine:
    row = find_sampler(settings.sampler)
    if row is None:
        raise CellFailed(f"sampler {settings.sampler!r} is not known")
    sigmas = sigmas_for(row.schedule, model.parameterization, settings.steps, row.discards_penultimate_sigma)
    shape = (LATENT_CHANNELS, settings.height // LATENT_SCALE, settings.width // LATENT_SCALE)
    noise = SeededNoise(settings.seed, shape, model.device)
    x = model.parameterization.initial((yield Draw(noise)), sigmas[0])
    origin = Origin(key=(settings.seed, shape, sigmas[0]), x=x)
    guidance = Guidance(weights, model.parameterization, conditions, origin)
    return (yield from guided(SAMPLERS[row.algorithm](x, sigmas, noise), guidance))


def _conditions(settings: Settings, weights: Weights, model: Model) -> Coroutine:
    """The rows of guidance, their texts encoded once for all cells that have them."""
    texts = [settings.prompt] if settings.cfg_scale == 1 else [settings.prompt, settings.negative_prompt]
    keys: list[Hashable] = [("text", weights, text, settings.clip_skip) for text in texts]
    states = yield tuple(
        Share(key, partial(encode, text, weights, model, settings.clip_skip))
        for key, text in zip(keys, texts, strict=True)
    )
    encoded = list(zip(keys, states, strict=True))
    return conditions_for(settings.cfg_scale, encoded[0], encoded[1] if len(encoded) > 1 else None)


def encode(
    text: str, weights: Weights, model: Model, clip_skip: int, generator: torch.Generator
) -> Coroutine:
    """The text's states `(tokens, channels)`: chunks of 75 tokens encoded apart and joined."""
    chunks = [EncodeText(weights, tokens, clip_skip) for tokens in model.chunks(text)]
    return torch.cat((yield tuple(chunks)))


def _check_clip_skip(settings: Settings, model: Model) -> None:
    if settings.clip_skip > model.text_layers:
        raise CellFailed(
            f"clip_skip {settings.clip_skip} is too much for {settings.model}: "
            f"its text encoder has {model.text_layers} layers"
        )
