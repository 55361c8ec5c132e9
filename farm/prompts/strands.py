"""What pulls at a picture: prompt and negative prompt become strands of text, each with its coefficient.

The guided output is uncond + cfg · Σ weight · (cond − uncond), with a cond for each part that AND joins
(Liu et al. 2022, arXiv:2206.01714, as in A1111).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from farm.prompts.grammar import parse, parse_negative
from farm.prompts.tree import nodes

Schedule = tuple[tuple[int, str], ...]
"""Texts that follow each other, each with the last step at which it holds."""

_ROUNDING = 1e-9
_KEPT = 20_000
"""Texts that are looked at once: the cells of a job say the same again and again."""


class Said(NamedTuple):
    """What a part of a prompt says while a picture is made.

    Attributes:
        schedule: of its texts, as far as the model is asked.
        texts: the different ones in it, in their order.
        others: that it would say if the model were asked more often; they matter to how long all are made.
    """

    schedule: Schedule
    texts: tuple[str, ...]
    others: tuple[str, ...] = ()


class Strand(NamedTuple):
    """One row of guidance, whatever its text is at the time.

    Attributes:
        said: its texts.
        coefficient: of its row in the guided output; a row of 0 is not computed.
        weight: of its row in the output without guidance; the unconditional row's is 0, and all sum to 1.
        conditional: whether it is of the prompt, not of the negative one.
    """

    said: Said
    coefficient: float
    weight: float
    conditional: bool


def stage_at(ends: Sequence[int], evaluation: int) -> int:
    """Which stage of a schedule an evaluation of the model belongs to.

    As in A1111, evaluations count from 0 and ends do not: ``[a:b:3]`` is `a` for four of them. Beyond the
    last end, which a sampler that chooses its steps can reach, the last stage stays.

    Args:
        ends: the last step of each stage.
        evaluation: its number, from 0.
    """
    return next((stage for stage, last in enumerate(ends) if evaluation <= last), len(ends) - 1)


@lru_cache(_KEPT)
def coefficients(prompt: str, cfg_scale: float) -> tuple[float, ...]:
    """Of the unconditional row and then of each part of the prompt, zeros included."""
    weights, total = _weights(prompt)
    found = (1 - cfg_scale * total, *(cfg_scale * weight for weight in weights))
    return tuple(0.0 if abs(one) < _ROUNDING else one for one in found)


@lru_cache(_KEPT)
def weights_without_guidance(prompt: str, cfg_scale: float) -> tuple[float, ...]:
    """Of each part of the prompt in the output without guidance; parts of no coefficient have 0 there too.

    Without the unconditional row, the first of the others stands in for it, as in A1111: all sum to 1.
    """
    weights, total = _weights(prompt)
    alone = 1 - total
    found: list[float] = []
    for weight, coefficient in zip(weights, coefficients(prompt, cfg_scale)[1:]):
        one = weight + alone if coefficient else 0.0
        alone = 0.0 if coefficient else alone
        found.append(0.0 if abs(one) < _ROUNDING else one)
    return tuple(found)


@lru_cache(_KEPT)
def strands(
    prompt: str,
    negative_prompt: str,
    cfg_scale: float,
    steps: int,
    evaluations: int | None = None,
    guided: int | None = None,
) -> tuple[Strand, ...]:
    """The rows of guidance whose coefficient is not 0; the unconditional one comes first.

    Args:
        prompt: the positive text, in which AND joins parts.
        negative_prompt: the text of the unconditional row.
        cfg_scale: the guidance scale.
        steps: that schedules are laid over.
        evaluations: how often the model is asked; None if nobody knows.
        guided: how many of the first evaluations have the unconditional row; None is all.
    """
    unconditional, *others = coefficients(prompt, cfg_scale)
    weights = weights_without_guidance(prompt, cfg_scale)
    if guided == 0 and any(weights):
        unconditional, others = 0.0, list(weights)
    found: list[Strand] = []
    if unconditional:
        [said] = said_by(negative_prompt, steps, _fewer(evaluations, guided), negative=True)
        found.append(Strand(said, unconditional, 0.0, conditional=False))
    parts = said_by(prompt, steps, evaluations) if any(others) else ()
    for said, coefficient, weight in zip(parts, others, weights):
        if coefficient:
            found.append(Strand(said, coefficient, weight, conditional=True))
    return tuple(found)


def _fewer(one: int | None, other: int | None) -> int | None:
    return min((count for count in (one, other) if count is not None), default=None)


@lru_cache(_KEPT)
def said_by(
    text: str, steps: int, evaluations: int | None = None, negative: bool = False
) -> tuple[Said, ...]:
    """What each part of a prompt says; the arguments are those of `strands`."""
    return tuple(
        _asked(tuple(part.schedule(steps)), evaluations)
        for part in (parse_negative if negative else parse)(text).parts
    )


def _asked(schedule: Schedule, evaluations: int | None) -> Said:
    ends = [last for last, _ in schedule]
    until = len(ends) if evaluations is None else stage_at(ends, evaluations - 1) + 1
    texts = tuple(dict.fromkeys(text for _, text in schedule[:until]))
    others = dict.fromkeys(text for _, text in schedule[until:] if text not in texts)
    return Said(schedule[:until], texts, tuple(others))


@lru_cache(_KEPT)
def _weights(prompt: str) -> tuple[tuple[float, ...], float]:
    """Of the parts, and their sum."""
    weights = tuple(part.weight for part in parse(prompt).parts)
    return weights, sum(weights)


@lru_cache(_KEPT)
def is_edited(text: str) -> bool:
    """Whether a prompt or a negative prompt may say something else at another step."""
    return any(
        True for read in (parse, parse_negative) for part in read(text).parts for _ in nodes(part.items)
    )
