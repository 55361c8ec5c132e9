"""What to say of names of samplers and schedules that are not there, where the nearest name would mislead."""

import re

from farm.diffusers_schedulers import PREFIX, BadScheduler, class_name
from farm.errors import quoted
from farm.sampling import Samplers

LISTS_SCHEDULERS = "farm samplers --diffusers lists them"

NOT_HERE = ("align your steps", "kl optimal", "polyexponential", "turbo", "cfg++")
"""Schedules and samplers of A1111 and its kin, as they stand at the end of names."""

_ENDINGS = tuple(f" {name}" for name in NOT_HERE)

_WITHOUT_PREFIX = re.compile(r"(diffusers\s*[.:\s]\s*)?(?P<name>\w+)\s*(?P<options>\(.*)?", re.IGNORECASE)


def sampler_hint(wanted: str, samplers: Samplers) -> str | None:
    """What is so about a name that no sampler has; None if there is nothing to say but the nearest name.

    Args:
        wanted: the name.
        samplers: that there are.
    """
    if wanted.strip().casefold() == "diffusers":
        return f"write {PREFIX}ClassName ({LISTS_SCHEDULERS})"
    if (scheduler := _scheduler_meant(wanted)) is not None:
        return f"did you mean {quoted(scheduler)}? ({LISTS_SCHEDULERS})"
    return _takes_none(wanted, samplers) or schedule_hint(wanted)


def schedule_hint(wanted: str) -> str | None:
    """As `sampler_hint`, of the name of a schedule or of what stands behind a sampler's name."""
    words = f" {wanted.casefold().replace('_', ' ')}"
    return "this one of A1111 is not here yet" if words.endswith(_ENDINGS) else None


def _scheduler_meant(wanted: str) -> str | None:
    """A scheduler of diffusers, where the name is that of its class."""
    match = _WITHOUT_PREFIX.fullmatch(wanted.strip())
    if match is None:
        return None
    try:
        return f"{PREFIX}{class_name(match['name'])}{match['options'] or ''}"
    except BadScheduler:
        return None


def _takes_none(wanted: str, samplers: Samplers) -> str | None:
    """Where a schedule is named behind a sampler that takes none."""
    folded = wanted.strip().casefold()
    for row in samplers.samplers:
        behind = folded.removeprefix(row.name.casefold())
        titles = (schedule.title.casefold() for schedule in samplers.schedules.values())
        if not row.takes_schedules and behind != folded and behind.strip() in titles:
            return f"{row.name} takes no schedule"
    return None
