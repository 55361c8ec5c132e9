"""What a job asks of its files that they cannot give, found before anything is rendered."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from farm.cell import Settings
from farm.costs import schedule_of
from farm.errors import FarmError, Problem, quoted
from farm.merges import Checkpoint, files_of
from farm.pictures import faults_of
from farm.plan import Plan
from farm.render.noise_levels import OutOfRange, ends_for, log_sigmas_of, sigma_range
from farm.sampling import Samplers
from farm.scheduler_names import as_predicting, chosen, is_scheduler
from farm.settings import INIT_IMAGE
from farm.starting import init_pictures
from farm.weights.catalog import Catalog
from farm.weights.configs import check_checkpoint, scheduler_config_of, skip_connections_of
from farm.weights.named import Named

MAX_OF_PIXELS = 4 << 30
"""Bytes of the pictures to start from, once they are of the sizes wanted: all go to every machine."""

NEEDED_FOR_ZERO_SNR = "rescale_betas_zero_snr"
"""What diffusers' schedulers call it, of those that have it."""

PREDICTION_WANTED = (
    "write prediction_type: epsilon or v_prediction, or put the YAML that it came with beside it"
)
"""For a checkpoint in whose file that is not written."""

Mistake = tuple[str, str]
"""The setting at fault, and what is wrong."""


def misfits(plan: Plan, path: Path, catalog: Catalog, named: Named) -> list[Problem]:
    """Each mistake once, where the setting stands in the job.

    Args:
        plan: of the job.
        path: of the job file, for settings that it does not have.
        catalog: of the models.
        named: finds the other files that pictures are made with.
    """
    wanted = sorted(dict.fromkeys(cell.settings for cell in plan.cells), key=lambda one: one.model)
    found = [
        mistake
        for model, group in groupby(wanted, key=lambda one: one.model)
        for mistake in _of_model(model, catalog.checkpoint(model), list(group), plan.samplers)
    ]
    found += _ambiguous(wanted, named)
    found += _too_many_pictures(wanted)
    images = plan.init_images.values()
    faults = faults_of([image.content for image in images])
    found += [(INIT_IMAGE, f"{quoted(image.name)} {fault}") for image, fault in zip(images, faults) if fault]
    return [
        Problem(str(plan.places.get(name, path)), f"{name}: {what}") for name, what in dict.fromkeys(found)
    ]


def _ambiguous(wanted: Sequence[Settings], named: Named) -> Iterator[Mistake]:
    """Names in prompts that are those of several files."""
    meant = {name: entries for one in wanted for name, entries in named.ambiguous(one).items()}
    for name, entries in meant.items():
        yield "prompt", f"{quoted(name)} may be any of {', '.join(repr(one.name) for one in entries)}"


def _too_many_pictures(wanted: Sequence[Settings]) -> Iterator[Mistake]:
    pictures = init_pictures(wanted)
    size = sum(one.bytes_of_pixels for one in pictures)
    if size > MAX_OF_PIXELS:
        what = f"{len(pictures):,} pictures to start from are {size / 2**30:.1f} GiB of pixels"
        yield INIT_IMAGE, f"{what}; at most {MAX_OF_PIXELS >> 30} GiB go to the workers of one job"


def _of_model(
    name: str, checkpoint: Checkpoint, wanted: Sequence[Settings], samplers: Samplers
) -> Iterator[Mistake]:
    """Nothing of a file that cannot be read: its cells fail, or the whole job has been refused."""
    try:
        check_checkpoint(checkpoint)
    except FarmError:
        return
    try:
        config = scheduler_config_of(checkpoint)
        levels = {
            zero_snr: log_sigmas_of(config, zero_snr)
            for zero_snr in dict.fromkeys(one.zero_terminal_snr for one in wanted)
        }
    except FarmError as error:
        yield "model", f"{name!r} cannot be used; {error}"
        return
    if config.get("prediction_type", "") is None and any(one.prediction_type is None for one in wanted):
        yield "model", f"{name!r} does not tell what it predicts; {PREDICTION_WANTED}"
        return
    yield from _unsuited(wanted, config)
    yield from _out_of_range(wanted, levels, samplers)
    yield from _too_deep(wanted, name, checkpoint)


def _unsuited(wanted: Sequence[Settings], config: Mapping[str, Any]) -> Iterator[Mistake]:
    """Schedulers of diffusers that expect another network, or lack what is asked of them."""
    for one in wanted:
        if not is_scheduler(one.sampler):
            continue
        named = chosen(one.sampler)
        if misfit := named.misfit(as_predicting(config, one.prediction_type)):
            yield "sampler", f"{one.sampler} cannot serve {one.model!r}: {misfit}"
        elif one.zero_terminal_snr and NEEDED_FOR_ZERO_SNR not in named.scheduler.options:
            yield "zero_terminal_snr", f"{one.sampler} cannot have it; it takes no {NEEDED_FOR_ZERO_SNR}"


def _too_deep(wanted: Sequence[Settings], name: str, checkpoint: Checkpoint) -> Iterator[Mistake]:
    """Branches that the UNet does not have."""
    branches = dict.fromkeys(one.deepcache_branch for one in wanted if one.deepcache_interval > 1)
    if not branches:
        return
    try:
        has = skip_connections_of(checkpoint)
    except FarmError as error:
        yield "deepcache_interval", f"{name!r} cannot have it; {files_of(checkpoint)[0]}: {error}"
        return
    for branch in branches:
        if branch >= has:
            of_its = f"the last of its {has} skip connections is {has - 1}"
            yield "deepcache_branch", f"{branch} is too much for {name!r}: {of_its}"


def _out_of_range(
    wanted: Sequence[Settings], levels: Mapping[bool | None, Sequence[float]], samplers: Samplers
) -> Iterator[Mistake]:
    """Sigmas that leave nothing of the noise levels that the network was trained at."""
    for one in wanted:
        if one.sigma_min is None and one.sigma_max is None:
            continue
        row = samplers[one.sampler]
        schedule = schedule_of(row, one.schedule, samplers)
        try:
            sigma_range(one, schedule, *ends_for(row, levels[one.zero_terminal_snr]))
        except OutOfRange as error:
            yield error.setting, error.what
