"""Schedulers of diffusers as samplers: a fresh one for each cell, driven as its pipeline drives it."""

import copy
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import diffusers
import torch

from farm.counting import steps_of_scheduler
from farm.diffusers_schedulers import SUFFIX
from farm.errors import CellFailed, described
from farm.questions import Output
from farm.render.brownian import drawing_by, on_the_cpu
from farm.render.samplers.sampling import Sampling
from farm.scheduler_names import Chosen
from farm.weights.device_errors import is_of_device


def scheduled(
    noise: torch.Tensor,
    steps: int,
    config: Mapping[str, Any],
    generator: torch.Generator,
    zero_terminal_snr: bool | None = None,
    *,
    chosen: Chosen,
    init: torch.Tensor | None = None,
    strength: float = 1.0,
    **options: Any,
) -> Sampling:
    """Samples with a scheduler of diffusers, as its StableDiffusionPipeline and its Img2Img one do.

    Args:
        noise: standard normal `(4, height/8, width/8)`.
        steps: sampling steps.
        config: the checkpoint's `scheduler_config.json`.
        generator: of the cell, in the state that drawing the initial noise left it in.
        zero_terminal_snr: whether training's noise levels end in pure noise; None is as the checkpoint says.
        chosen: the scheduler and what the job says of it.
        init: latents of the picture to start from; None starts from noise alone.
        strength: the part of the steps that is made from there, rounded down.
        options: of `step`: eta, s_churn and the like.

    Raises:
        CellFailed: the scheduler and the checkpoint do not fit, or the scheduler will not have its options.
    """
    with _words_of(chosen):
        if misfit := chosen.misfit(config):
            raise CellFailed(misfit)
        scheduler = _built(chosen, config, generator.initial_seed(), zero_terminal_snr)
        scheduler.set_timesteps(steps, device="cpu")
        times = list(scheduler.timesteps)
        if init is None:
            x = noise[None] * getattr(scheduler, "init_noise_sigma", 1.0)  # flow's have none
        else:
            times, steps = _last(scheduler, times, steps, strength)
            x = scheduler.add_noise(init[None], noise[None], torch.stack(times[:1]))
    if "generator" in chosen.scheduler.step:
        options["generator"] = generator
    for asked, time in enumerate(times):
        shown = scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x
        step = asked // scheduler.order if scheduler.order > 1 else max(0, asked - len(times) + steps)
        output = yield Output(shown[0], float(time), step)
        with _words_of(chosen), drawing_by(on_the_cpu(x.dtype)):
            x = scheduler.step(output[None], time, x, **options).prev_sample
    return x[0]


def _last(
    scheduler: Any, times: list[torch.Tensor], steps: int, strength: float
) -> tuple[list[torch.Tensor], int]:
    """The timesteps that are left where a picture is the start, and how many steps they make."""
    left = steps_of_scheduler(steps, strength)
    begin = (steps - left) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    return times[begin:], left


def _built(chosen: Chosen, config: Mapping[str, Any], seed: int, zero_terminal_snr: bool | None) -> Any:
    """A scheduler of the cell's own.

    A Brownian path, which diffusers would seed at random, is given the cell's seed; it is drawn on the CPU.
    """
    takes, options = chosen.scheduler.options, dict(chosen.options)
    if zero_terminal_snr is not None and "rescale_betas_zero_snr" in takes:
        options = {"rescale_betas_zero_snr": zero_terminal_snr} | options
    elif zero_terminal_snr:
        raise CellFailed("it has no rescale_betas_zero_snr, so zero_terminal_snr cannot be had")
    scheduler = copy.deepcopy(_unused(chosen.scheduler.name, json.dumps(dict(config)), json.dumps(options)))
    if "noise_sampler_seed" in takes and "noise_sampler_seed" not in options:
        scheduler.noise_sampler_seed = seed
    return scheduler


@lru_cache(maxsize=64)
def _unused(name: str, config: str, options: str) -> Any:
    """What `Class.from_config(pipeline.scheduler.config, **options)` gives: it inherits all it takes.

    To be copied, not used: some take a second to build.

    Args:
        name: of the class.
        config: the checkpoint's, in JSON.
        options: that the job gives, in JSON.
    """
    kind = getattr(diffusers, name, None)
    if kind is None:
        raise CellFailed(f"diffusers {diffusers.__version__} has no {name}")
    inherited, given = _as_pipeline_has_it(json.loads(config)), json.loads(options)
    try:
        return kind.from_config(inherited, **given)
    except NotImplementedError as error:  # of a word that the class does not know
        raise CellFailed(
            described(error) + _source(str(error), inherited.keys() - given, inherited)
        ) from error


def _source(message: str, names: Iterable[str], inherited: Mapping[str, Any]) -> str:
    """Where a word in a refusal comes from, if the checkpoint says it and not the job."""
    said = {name: inherited[name] for name in sorted(names) if isinstance(inherited[name], str)}
    blamed = [f"{name}={word}" for name, word in said.items() if word in message and not name.startswith("_")]
    return f"; the checkpoint says {', '.join(blamed)}" if blamed else ""


def _as_pipeline_has_it(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as StableDiffusionPipeline keeps it.

    It is completed by the class that it names, and two settings of old checkpoints are mended.
    """
    name = str(config.get("_class_name"))
    kind = getattr(diffusers, name, None) if name.endswith(SUFFIX) else None
    kept = dict(config) if kind is None else dict(kind.from_config(dict(config)).config)
    mended: dict[str, Any] = {"steps_offset": 1} if kept.get("steps_offset", 1) != 1 else {}
    if kept.get("clip_sample") is True:
        mended["clip_sample"] = False
    return kept | mended


@contextmanager
def _words_of(chosen: Chosen) -> Iterator[None]:
    """Keeps diffusers' remarks out of people's terminals; its refusals become ours, in one line."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        if is_of_device(error):
            raise
        raise CellFailed(f"{chosen.spelling}: {described(error)}") from error
    finally:
        logger.setLevel(level)
