"""What a picture asks of the networks, and what it shares: the one account that plans and queues go by."""

import math
from collections.abc import Hashable, Iterator
from typing import NamedTuple

from farm.cell import Settings
from farm.counting import steps_of_scheduler
from farm.prompts.alike import chunks_of, first_words, sections_of, words_of
from farm.prompts.patches import Scales, patches_of
from farm.prompts.strands import Strand, coefficients, strands, weights_without_guidance
from farm.sampling import AUTOMATIC, BUILT_IN, DIFFUSERS, Sampler, Samplers, Schedule
from farm.starting import start_of, steps_walked

_ROUNDING = 1e-9


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
    discard = settings.discard_next_to_last_sigma
    return evaluations_at(settings.steps, row, schedule, discard, settings.strength)


def schedule_of(row: Sampler, asked: str, samplers: Samplers) -> Schedule:
    """The one that is meant, whatever else was asked for where there is no choice."""
    free = row.takes_schedules and asked != AUTOMATIC
    return samplers.schedules[asked if free else row.schedule]


def evaluations_at(
    steps: int,
    row: Sampler,
    schedule: Schedule,
    discard: bool | None = None,
    strength: float | None = None,
) -> int:
    """How often the model is asked by a sampler that makes so many steps of a schedule.

    Args:
        steps: as asked; some schedules make more of them.
        row: of the sampler.
        schedule: that it walks down.
        discard: as `Settings.discard_next_to_last_sigma`.
        strength: as `Settings.strength`.
    """
    if row.algorithm == DIFFUSERS and strength is not None:  # its pipelines leave the first steps out
        left_out = steps - steps_of_scheduler(steps, strength)
        return row.evaluations(steps) - left_out * (row.evaluations(_MANY + 1) - row.evaluations(_MANY))
    walked = steps_walked(steps, row, schedule, discard, strength)
    if row.chooses_steps and strength is not None and walked == 1 and isinstance(row.algorithm, str):
        return 0  # it starts where it ends
    return row.evaluations(walked)


def prompt_steps(settings: Settings, samplers: Samplers = BUILT_IN) -> int:
    """The steps that prompt editing and alternation are laid over.

    A1111 counts evaluations of the model there, and two for each step of samplers that ask twice.
    """
    return steps_of_prompt(settings.steps, samplers[settings.sampler])


def steps_of_prompt(steps: int, row: Sampler) -> int:
    """As `prompt_steps`, for so many steps of a sampler."""
    twice = not row.chooses_steps and row.evaluations(_MANY) > 1.5 * _MANY
    return steps * 2 if twice else steps


_MANY = 100


def rows_at_once(settings: Settings) -> int:
    """Rows that go through the UNet at an evaluation with guidance, one for each text with a coefficient."""
    return sum(1 for one in coefficients(settings.prompt, settings.cfg_scale) if one)


def _rows_without_guidance(settings: Settings) -> int:
    found = weights_without_guidance(settings.prompt, settings.cfg_scale)
    return sum(1 for one in found if one) or rows_at_once(settings)


def guided_of(asked: int, guidance_stop: float) -> int:
    """How many of so many evaluations have guidance, the first ones: rounded down, as diffusers' guiders do.

    Args:
        asked: evaluations of the model.
        guidance_stop: the fraction of them.
    """
    return math.floor(guidance_stop * asked + _ROUNDING)


def guided_evaluations(settings: Settings, samplers: Samplers = BUILT_IN) -> int | None:
    """How many of the first evaluations have guidance; None is all, however many there will be."""
    if settings.guidance_stop == 1 or samplers[settings.sampler].chooses_steps:
        return None
    return guided_of(evaluations(settings, samplers), settings.guidance_stop)


def guiding_strands(settings: Settings, samplers: Samplers = BUILT_IN) -> tuple[Strand, ...]:
    """The texts that have a row, with their coefficients: the negative prompt, and the prompt's parts."""
    row = samplers[settings.sampler]
    counted = is_counted(row, schedule_of(row, settings.schedule, samplers))
    asked = evaluations(settings, samplers) if counted else None
    steps = steps_of_prompt(settings.steps, row)
    guided = guided_evaluations(settings, samplers)
    return strands(settings.prompt, settings.negative_prompt, settings.cfg_scale, steps, asked, guided)


def is_counted(row: Sampler, schedule: Schedule) -> bool:
    """Whether the model is surely asked as often as is said; of plugins' and diffusers' own, nobody knows."""
    ours = isinstance(row.algorithm, str) and isinstance(schedule.function, str)
    return ours and row.algorithm != DIFFUSERS and not row.chooses_steps


PER_BRANCH = 0.1
"""Of a full row's work, what a shallow one takes for each branch that it goes deep."""


class Rows(NamedTuple):
    """Rows of a picture that go through the UNet if nothing is shared.

    Attributes:
        full: through all of its blocks.
        shallow: through the blocks that do not use deep features of before.
    """

    full: int
    shallow: int


def rows(settings: Settings, samplers: Samplers = BUILT_IN) -> int:
    """Rows that go through the UNet if nothing is shared."""
    return sum(rows_of(evaluations(settings, samplers), settings))


def shallow_rows(settings: Settings, samplers: Samplers = BUILT_IN) -> int:
    """Those of the rows that go through the shallow blocks alone."""
    return rows_of(evaluations(settings, samplers), settings).shallow


def leaves_out(settings: Settings) -> bool:
    """Whether there may be fewer rows than are counted, since evaluations at low noise leave some out.

    At how much noise a sampler asks hangs on the network's levels, which only who renders looks at.
    """
    is_asked = settings.negative_guidance_minimum_sigma > 0
    return is_asked and _rows_without_guidance(settings) < rows_at_once(settings)


def rows_of(asked: int, settings: Settings) -> Rows:
    """The rows of a picture for which the model is asked so often, at most: see `leaves_out`."""
    guided = guided_of(asked, settings.guidance_stop)
    with_guidance, without = rows_at_once(settings), _rows_without_guidance(settings)

    def counted(every: int) -> int:
        """Rows of each so-many-th evaluation, from the first."""
        first, all_of_them = math.ceil(guided / every), math.ceil(asked / every)
        return first * with_guidance + (all_of_them - first) * without

    full = counted(settings.deepcache_interval)
    return Rows(full, counted(1) - full)


def strand_rows(asked: int, settings: Settings, samplers: Samplers = BUILT_IN) -> list[Rows]:
    """As `rows_of`, of each of the `guiding_strands`."""
    guided, every = guided_of(asked, settings.guidance_stop), settings.deepcache_interval
    found = guiding_strands(settings, samplers)
    left = any(one.weight for one in found)  # else all of them go on without guidance
    counts = [guided if left and not one.weight else asked for one in found]
    return [Rows(math.ceil(count / every), count - math.ceil(count / every)) for count in counts]


def weighed_rows(asked: int, settings: Settings) -> float:
    """The rows of a picture, a shallow one as the part of a full one that its work is, about."""
    full, shallow = rows_of(asked, settings)
    return full + weight_of_shallow(settings.deepcache_branch) * shallow


def weight_of_shallow(branch: int) -> float:
    """The part of a full row's work that a shallow one takes, about.

    Args:
        branch: as `Settings.deepcache_branch`.
    """
    return min(1.0, PER_BRANCH * (1 + branch))


def row_kind(settings: Settings) -> tuple[Hashable, ...]:
    """Equal for pictures whose rows are computed alike, so that they can share batches and first rows."""
    branch = settings.deepcache_branch if settings.deepcache_interval > 1 else None
    return settings.token_merging_ratio, branch, patches_of(settings.prompt).on_unet.names


def encodings(
    settings: Settings, samplers: Samplers = BUILT_IN
) -> Iterator[tuple[str, str, int, tuple[str, ...], Scales]]:
    """Names each text that is encoded: equal ones are encoded once, whatever the weights of their pieces.

    By model, precision, clip skip, and LoRA that act on text encoders.

    Texts are told apart by what stands in them, since nobody has looked at their tokens yet.
    """
    on_text = patches_of(settings.prompt).on_text
    for strand in guiding_strands(settings, samplers):
        for text in strand.said.texts:
            yield settings.model, settings.precision, settings.clip_skip, words_of(text), on_text


def lengths(settings: Settings, samplers: Samplers = BUILT_IN) -> tuple[int, ...]:
    """How many chunks the text of each row has, about: no tokenizer has looked at them yet.

    Rows of different lengths cannot share a batch. The parts of an AND are all as long as the longest.
    """
    found = guiding_strands(settings, samplers)
    longest = max((chunks_of(strand.said) for strand in found if strand.conditional), default=0)
    return tuple(longest if strand.conditional else chunks_of(strand.said) for strand in found)


def first_pass(settings: Settings) -> tuple[Hashable, ...]:
    """Equal for pictures that may share their first pass, whatever their samplers and CFG scales."""
    picture: tuple[Hashable, ...] = ()
    if settings.init_image:
        picture = (settings.init_image, settings.other_vae, settings.strength, settings.steps)
    return (*_noise(settings), *picture, *row_kind(settings), settings.prompt, settings.negative_prompt)


def first_rows(settings: Settings, samplers: Samplers = BUILT_IN) -> list[tuple[Hashable, ...]]:
    """Names each row of the first pass that may be shared; equal rows are computed once."""
    if _begins_on_its_own(settings, samplers) or not evaluations(settings, samplers):
        return []
    start = (*_noise(settings), *row_kind(settings), *_start(settings, samplers), patches_of(settings.prompt))
    found = guiding_strands(settings, samplers)
    longest = max((sections_of(strand.said) for strand in found if strand.conditional), default=0)
    return [
        (
            *start,
            *first_words(one.said, settings.emphasis),
            longest if one.conditional else sections_of(one.said),
        )
        for one in found
    ]


def _begins_on_its_own(settings: Settings, samplers: Samplers) -> bool:
    """Whether the first question is about other latents than those that cells have in common."""
    return samplers[settings.sampler].algorithm == DIFFUSERS or settings.s_churn > 0


def _noise(settings: Settings) -> tuple[Hashable, ...]:
    """The networks and the noise."""
    size = (settings.width, settings.height)
    resize = (settings.seed_resize_from_width, settings.seed_resize_from_height)
    variation = (settings.variation_seed, settings.variation_strength)
    noise = (settings.seed, *size, *variation, *resize, settings.rng)
    return (settings.model, settings.precision, settings.clip_skip, *noise)


def _start(settings: Settings, samplers: Samplers) -> tuple[Hashable, ...]:
    """The first sigma, and what is mixed with its noise."""
    row = samplers[settings.sampler]
    schedule = schedule_of(row, settings.schedule, samplers)
    return start_of(settings, row, schedule, samplers.first_name(schedule))
