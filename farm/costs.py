"""What a picture asks of the networks, and what it shares: the one account that plans and queues go by."""

from collections.abc import Hashable

from farm.cell import Settings
from farm.sampling import SAMPLERS

_EVALUATIONS = {row.name: row.evaluations for row in SAMPLERS}


def evaluations(settings: Settings) -> int:
    """How often the model is asked.

    Raises:
        KeyError: the sampler is not a canonical name of `farm.sampling`.
    """
    return _EVALUATIONS[settings.sampler](settings.steps)


def guiding_texts(settings: Settings) -> tuple[str, ...]:
    """The texts that have a row: the prompt's weight is the scale, the negative prompt's 1 - scale."""
    if settings.cfg_scale == 1:
        return (settings.prompt,)
    if settings.cfg_scale == 0:
        return (settings.negative_prompt,)
    return settings.prompt, settings.negative_prompt


def rows(settings: Settings) -> int:
    """Rows that go through the UNet if nothing is shared: at each evaluation, one for each text."""
    return evaluations(settings) * len(guiding_texts(settings))


def first_pass(settings: Settings) -> tuple[Hashable, ...]:
    """Equal for pictures that can share their first pass, whatever their samplers and CFG scales."""
    return (*_start(settings), settings.prompt, settings.negative_prompt)


def first_rows(settings: Settings) -> list[tuple[Hashable, ...]]:
    """Names each row of the first pass; equal rows are computed once."""
    return [(*_start(settings), text) for text in guiding_texts(settings)]


def _start(settings: Settings) -> tuple[Hashable, ...]:
    """The networks and the noise; all samplers start from the same sigma."""
    size = (settings.width, settings.height)
    return (settings.model, settings.precision, *size, settings.seed, settings.clip_skip)
