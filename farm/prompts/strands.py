"""What pulls at a picture: prompt and negative prompt become strands of text, each with its coefficient.

The guided output is uncond + cfg · Σ weight · (cond − uncond), with a cond for each part that AND joins
(Liu et al. 2022, arXiv:2206.01714, as in A1111).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from farm.prompts.grammar import parse, parse_negative
from farm.prompts.tree import Part, nodes

Schedule = tuple[tuple[int, str], ...]
"""Texts that follow each other, each with the last step at which it holds."""

_ROUNDING = 1e-9
_KEPT = 5000


@dataclass(frozen=True, slots=True)
class Strand:
    """One row of guidance, whatever its text is at the time.

    Attributes:
        schedule: of its texts.
        texts: the different ones, in their order.
        coefficient: of its row in the guided output; a row of 0 is not computed.
        weight: of its row in the output without guidance; the unconditional row's is 0.
        conditional: whether it is of the prompt, not of the negative one.
    """

    schedule: Schedule
    texts: tuple[str, ...]
    coefficient: float
    weight: float
    conditional: bool


@lru_cache(_KEPT)
def is_edited(text: str) -> bool:
    """Whether a prompt or a negative prompt may say something else at another step."""
    return any(
        True for read in (parse, parse_negative) for part in read(text).parts for _ in nodes(part.items)
    )


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
def strands(prompt: str, negative_prompt: str, cfg_scale: float, steps: int) -> tuple[Strand, ...]:
    """The rows of guidance whose coefficient is not 0; the unconditional one comes first.

    Args:
        prompt: the positive text, in which AND joins parts.
        negative_prompt: the text of the unconditional row.
        cfg_scale: the guidance scale.
        steps: that schedules are laid over.
    """
    parts = parse(prompt).parts
    total = math.fsum(part.weight for part in parts)
    [negative] = parse_negative(negative_prompt).parts
    found = [_strand(negative, steps, 1 - cfg_scale * total, 0.0, conditional=False)]
    for number, part in enumerate(parts):
        alone = part.weight + (0 if number else 1 - total)  # A1111: the first stands in for the other row
        found.append(_strand(part, steps, cfg_scale * part.weight, alone, conditional=True))
    return tuple(strand for strand in found if abs(strand.coefficient) > _ROUNDING)


def _strand(part: Part, steps: int, coefficient: float, weight: float, conditional: bool) -> Strand:
    schedule = tuple(part.schedule(steps))
    texts = tuple(dict.fromkeys(text for _, text in schedule))
    return Strand(schedule, texts, coefficient, weight, conditional)
