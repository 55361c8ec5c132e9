"""How a cell becomes a picture: coroutines that ask for whatever they need of a network."""

import math
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from farm.cell import Settings
from farm.costs import guided_evaluations, schedule_of
from farm.counting import steps_from_picture
from farm.diffusers_schedulers import BadScheduler
from farm.errors import CellFailed
from farm.init_pixels import InitPixels
from farm.prompts.patches import patches_of
from farm.questions import Draw, NoiseSource
from farm.render.broken import Broken, Fault
from farm.render.conditioning import conditions_of
from farm.render.deepcache import deepcache_of
from farm.render.distilled import distilled
from farm.render.guidance import Condition, Guidance, Origin, Sampled, guided
from farm.render.init_latents import init_latents_of
from farm.render.inpainting import channels_beside
from farm.render.model import Model
from farm.render.noise import CellNoise
from farm.render.parameterization import Parameterization
from farm.render.requests import LATENT_SCALE, Coroutine, Decode, Open, Weights
from farm.render.samplers import SAMPLERS
from farm.render.samplers.added import named
from farm.render.samplers.sampling import Sampling, Sigmas
from farm.render.samplers.scheduler import scheduled
from farm.render.schedules import sigmas_for
from farm.sampling import BUILT_IN, DIFFUSERS, Sampler, Samplers, Schedule
from farm.scheduler_names import as_predicting
from farm.weights.embedding import Embedding

LATENT_CHANNELS = 4


class Picture(NamedTuple):
    """What a cell became.

    Attributes:
        pixels: uint8 `(height, width, 3)`.
        evaluations: of the model.
        remark: what was done otherwise than asked, in one line; empty if nothing was.
    """

    pixels: torch.Tensor
    evaluations: int
    remark: str = ""


def text_to_image(
    settings: Settings,
    samplers: Samplers = BUILT_IN,
    pictures: InitPixels = MappingProxyType({}),
    embeddings: Mapping[str, Embedding] = MappingProxyType({}),
) -> Coroutine:
    """Renders a cell, from noise or from a picture and noise; returns a `Picture`.

    Args:
        settings: resolved.
        samplers: that there are.
        pictures: to start from.
        embeddings: by the names that its prompts may call them.

    Raises:
        Broken: there is nothing to be seen on it; at fp32 there may be.
    """
    weights = weights_of(settings)
    model: Model = yield Open(weights)
    _check_clip_skip(settings, model)
    _rows(settings, samplers)  # before anything is encoded for a sampler that there is not
    conditions = yield from conditions_of(settings, weights, model.knowing(embeddings), samplers)
    init, encoding = yield from init_latents_of(settings, weights, model, pictures)
    beside, masking = yield from channels_beside(settings, weights, model)
    shown = Shown(conditions, beside)
    sampled: Sampled = yield from _sample(settings, weights, model, shown, samplers, init)
    pixels, decoding = yield from _decoded(weights, model, sampled.latents, settings.other_vae)
    remarks = dict.fromkeys(filter(None, (encoding, masking, decoding)))
    return Picture(pixels, sampled.evaluations, "; ".join(remarks))


def _decoded(weights: Weights, model: Model, latents: torch.Tensor, vae: str) -> Coroutine:
    """The picture, and a remark on it. What overflows in a VAE at half precision is decoded in fp32."""
    try:
        return (yield Decode(weights, latents, model.decodes_precisely, vae)), ""
    except Broken as broken:
        if model.is_precise or model.decodes_precisely or broken.fault is Fault.LATENTS:
            raise
        remark = f"decoded at fp32, since {broken.fault.value}"
    return (yield Decode(weights, latents, True, vae)), remark


class Shown(NamedTuple):
    """What the network is shown and told at each evaluation, besides the latents.

    Attributes:
        conditions: of guidance.
        beside: channels behind the latents; None if it takes none.
    """

    conditions: tuple[Condition, ...]
    beside: torch.Tensor | None


def weights_of(settings: Settings) -> Weights:
    """The networks that a cell asks."""
    return Weights(settings.model, settings.precision)


def _sample(
    settings: Settings,
    weights: Weights,
    model: Model,
    shown: Shown,
    samplers: Samplers,
    init: torch.Tensor | None,
) -> Coroutine:
    row, schedule = _rows(settings, samplers)
    shape = (LATENT_CHANNELS, settings.height // LATENT_SCALE, settings.width // LATENT_SCALE)
    noise = CellNoise(settings, shape, model.device)
    drawn = yield Draw(noise.initial)
    trained = model.parameterization(settings.zero_terminal_snr, settings.prediction_type)
    parameterization = distilled(trained, row.distilled_at)
    options = {name: OPTIONS[name](settings, parameterization) for name in row.options}
    guidance = partial(
        Guidance, weights, parameterization, shown.conditions, beside=shown.beside,
        rescale=settings.guidance_rescale, minimum_sigma=settings.negative_guidance_minimum_sigma,
        guided=guided_evaluations(settings, samplers), token_merging_ratio=settings.token_merging_ratio,
        deepcache=deepcache_of(settings), patches=patches_of(settings.prompt).on_unet,
    )  # fmt: skip
    if row.algorithm == DIFFUSERS:
        config = as_predicting(model.scheduler_config, settings.prediction_type)
        scheduling = scheduled(
            drawn, settings.steps, config, noise.generator, settings.zero_terminal_snr,
            init=init, strength=settings.denoising_strength, **options, **row.fixed,
        )  # fmt: skip
        return (yield from guided(scheduling, guidance(origin=Origin(noise.key, drawn))))
    whole = sigmas_for(settings, row, schedule, parameterization)
    sigmas = whole if init is None else _from_picture(settings, whole)
    if init is None:
        x = parameterization.initial(drawn, sigmas[0], row.starts_at_unit_variance)
        start: tuple[Hashable, ...] = (row.starts_at_unit_variance,)
    else:
        x, start = init + drawn * sigmas[0], (settings.init_image, settings.other_vae)
        if "sigma_min" in options:  # of a part of the schedule: its own last one, as in A1111
            options["sigma_min"] = sigmas[-2]
    if shown.beside is not None:
        start = (*start, settings.other_vae)
    origin = Origin(key=(*noise.key, sigmas[0], *start), x=x)
    sampling = _begun(row, x, sigmas, noise.for_sampler(row, whole), {**options, **row.fixed})
    return (yield from guided(sampling, guidance(origin=origin)))


def _from_picture(settings: Settings, sigmas: Sigmas) -> Sigmas:
    """What is left of the way down where a picture is the start: as many last steps as A1111 makes."""
    return sigmas[-1 - steps_from_picture(settings.steps, settings.denoising_strength) :]


def _begun(
    row: Sampler, x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource, options: Mapping[str, Any]
) -> Sampling:
    if isinstance(row.algorithm, str):
        return SAMPLERS[row.algorithm](x, sigmas, noise, **options)
    return named(row.name, partial(row.algorithm, x, sigmas, noise, **options), x.shape)


def _rows(settings: Settings, samplers: Samplers) -> tuple[Sampler, Schedule]:
    try:
        row = samplers[settings.sampler]
        return row, schedule_of(row, settings.schedule, samplers)
    except (KeyError, BadScheduler) as unknown:
        why = unknown if isinstance(unknown, BadScheduler) else "is not known"
        named = f"sampler {settings.sampler!r} with schedule {settings.schedule!r}"
        raise CellFailed(f"{named} {why}") from unknown


OPTIONS: dict[str, Callable[[Settings, Parameterization], Any]] = {
    "eta": lambda settings, _: settings.eta,
    "s_churn": lambda settings, _: settings.s_churn,
    "s_tmin": lambda settings, _: settings.s_tmin,
    "s_tmax": lambda settings, _: math.inf if settings.s_tmax is None else settings.s_tmax,
    "s_noise": lambda settings, _: settings.s_noise,
    "sigma_min": lambda settings, model: max(settings.sigma_min or 0, model.sigma_min),
    "time_at": lambda _, model: model.time_at,
}
"""What can be handed to a sampler, by `farm.sampling.Sampler.options`."""


def _check_clip_skip(settings: Settings, model: Model) -> None:
    if settings.clip_skip > model.text_layers:
        raise CellFailed(
            f"clip_skip {settings.clip_skip} is too much for {settings.model}: "
            f"its text encoder has {model.text_layers} layers"
        )
