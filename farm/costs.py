"""What a picture asks of the networks, and what it shares: the one account that plans and queues go by."""

from collections.abc import Hashable

from farm.cell import Settings
from farm.sampling import AUTOMATIC, BUILT_IN, Sampler, Samplers, Schedule


def evaluations(settings: Settings, samplers: Samplers = BUILT_IN) -> int:
    """How often the model is asked.

    Args:
        settings: resolved.
        samplers: that there are.

    Raises:
        KeyError: there is no such sampler or schedule.
    """
    row = samplers[settings.sampler]
    schedule = schedule_of(row, settings.schedule, samplers)
    return evaluations_at(settings.steps, row, schedule, settings.discard_next_to_last_sigma)


def schedule_of(row: Sampler, asked: str, samplers: Samplers) -> Schedule:
    """The one that is meant, whatever else was asked for where there is no choice."""
    free = row.takes_schedules and asked != AUTOMATIC
    return samplers.schedules[asked if free else row.schedule]


def evaluations_at(steps: int, row: Sampler, schedule: Schedule, discard: bool | None = None) -> int:
    """How often the model is asked by a sampler that makes so many steps of a schedule.

    Args:
        steps: as asked; some schedules make more of them.
        row: of the sampler.
        schedule: that it walks down.
        discard: as `Settings.discard_next_to_last_sigma`.
    """
    if not row.takes_schedules:
        return row.evaluations(steps)
    discarded = row.discards(discard)
    return row.evaluations(schedule.steps(steps + discarded) - discarded)


def guiding_texts(settings: Settings) -> tuple[str, ...]:
    """The texts that have a row: the prompt's weight is the scale, the negative prompt's 1 - scale."""
    if settings.cfg_scale == 1:
        return (settings.prompt,)
    if settings.cfg_scale == 0:
        return (settings.negative_prompt,)
    return settings.prompt, settings.negative_prompt


def rows(settings: Settings, samplers: Samplers = BUILT_IN) -> int:
    """Rows that go through the UNet if nothing is shared: at each evaluation, one for each text."""
    return evaluations(settings, samplers) * len(guiding_texts(settings))


def first_pass(settings: Settings) -> tuple[Hashable, ...]:
    """Equal for pictures that may share their first pass, whatever their samplers and CFG scales."""
    return (*_noise(settings), settings.prompt, settings.negative_prompt)


def first_rows(settings: Settings, samplers: Samplers = BUILT_IN) -> list[tuple[Hashable, ...]]:
    """Names each row of the first pass; equal rows are computed once."""
    start = (*_noise(settings), *_start(settings, samplers))
    return [(*start, text) for text in guiding_texts(settings)]


def _noise(settings: Settings) -> tuple[Hashable, ...]:
    """The networks and the noise."""
    size = (settings.width, settings.height)
    resize = (settings.seed_resize_from_width, settings.seed_resize_from_height)
    variation = (settings.variation_seed, settings.variation_strength)
    noise = (settings.seed, *size, *variation, *resize, settings.rng)
    return (settings.model, settings.precision, settings.clip_skip, *noise)


def _start(settings: Settings, samplers: Samplers) -> tuple[Hashable, ...]:
    """The first sigma, and how the latents are scaled there."""
    row = samplers[settings.sampler]
    known = 0 if settings.sigma_max is None else row.distilled_at  # these round a sigma's time
    sigma = (settings.sigma_max, settings.zero_terminal_snr, known)
    if row.algorithm == "diffusers" or settings.s_churn > 0:  # its first question is its own
        return (settings,)
    if schedule_of(row, settings.schedule, samplers).starts_at_sigma_max:
        return (*sigma, row.starts_at_unit_variance)
    spaced = settings.steps + row.discards(settings.discard_next_to_last_sigma)
    shape = (settings.schedule, spaced, settings.sigma_min, settings.rho)
    return (*sigma, row.starts_at_unit_variance, *shape)
