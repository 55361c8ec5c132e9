"""From settings as asked to settings as decided: everything said, and nothing that changes no pixel."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from farm.cell import DEFAULTS, SETTING_NAMES, Settings
from farm.costs import evaluations_at, guided_of, is_counted, schedule_of, steps_of_prompt
from farm.counting import least_strength, steps_from_picture, steps_of_scheduler
from farm.prompts.emphasis import is_weighted
from farm.prompts.strands import coefficients, is_edited, strands, weights_without_guidance
from farm.sampling import AUTOMATIC, DIFFUSERS, Sampler, Samplers, Schedule

MAX_STEPS = 1000

Ignored = tuple[str, str]
"""A setting that changes no pixel, and the words that say where: `on Euler`, `where s_churn is 0`."""


def resolved(asked: Mapping[str, Any], samplers: Samplers) -> Settings:
    """Complete settings: the sampler and its schedule by their own names, defaults filled in.

    Settings that have no effect on the picture are put back to their defaults, so that combinations that
    give the same picture are equal.

    Args:
        asked: values by the names of `farm.settings.SETTINGS`; what is missing has its default.
        samplers: that there are.

    Raises:
        KeyError: there is no such sampler or schedule.
    """
    return settled(completed(asked, samplers), samplers)[0]


def completed(asked: Mapping[str, Any], samplers: Samplers) -> dict[str, Any]:
    """What was asked, with its defaults, the schedule that the sampler's name says, steps and evaluations.

    The steps are 0 where even one costs more evaluations than are asked for.

    Args:
        asked: as for `resolved`.
        samplers: that there are.

    Raises:
        KeyError: there is no such sampler or schedule.
    """
    chosen = {**DEFAULTS, **asked}
    row, named = samplers.find(chosen["sampler"])
    if chosen["schedule"] == AUTOMATIC:
        chosen["schedule"] = named
    schedule = schedule_of(row, chosen["schedule"], samplers)
    if "evaluations" not in asked:
        chosen["evaluations"] = _evaluations(chosen, row, schedule)
    elif not row.chooses_steps:
        chosen["steps"] = _steps_within(asked["evaluations"], chosen, row, schedule)
    return chosen


def contradictions(asked: Mapping[str, Any], samplers: Samplers) -> Iterator[tuple[str, str]]:
    """What in these settings cannot be: the setting at fault, and the mistake in words.

    Args:
        asked: as `completed` gives it.
        samplers: that there are.
    """
    row, named = samplers.find(asked["sampler"])
    if named not in (AUTOMATIC, asked["schedule"]):
        what = f"{asked['schedule']} contradicts {asked['sampler']!r}, which has {named} by its name"
        yield "schedule", f"{what}; name the sampler {row.name!r} to choose"
    if asked["steps"] == 0:
        schedule = schedule_of(row, asked["schedule"], samplers)
        least = _evaluations({**asked, "steps": 1}, row, schedule)
        few = f"{asked['evaluations']} is not enough for {row.name}"
        yield "evaluations", f"{few}; one step of it takes {least}"
    if asked["init_image"]:
        yield from _not_from_pictures(asked, row)
    low, high = asked["sigma_min"], asked["sigma_max"]
    if low is not None and high is not None and low >= high:
        yield "sigma_min", f"{low:g} is not allowed; less than sigma_max is, which is {high:g}"
    first, last = asked["s_tmin"], asked["s_tmax"]
    if last is not None and first > last:
        yield "s_tmin", f"{first:g} is not allowed; at most s_tmax is, which is {last:g}"
    sides = ("seed_resize_from_width", "seed_resize_from_height")
    given, missing = sides if asked[sides[0]] else sides[::-1]
    if asked[given] and not asked[missing]:
        yield given, f"{asked[given]} needs {missing} beside it"


def _not_from_pictures(asked: Mapping[str, Any], row: Sampler) -> Iterator[tuple[str, str]]:
    steps, strength = asked["steps"], asked["denoising_strength"]
    if not row.starts_from_pictures:
        yield "sampler", f"{row.name} cannot start from a picture; a rule under `skip` leaves it out"
    elif row.algorithm == DIFFUSERS and steps and not steps_of_scheduler(steps, strength):
        least = f"of its {steps} steps at least {math.ceil(1000 / steps) / 1000:g} leaves one"
        yield "denoising_strength", f"{strength:g} is too little for {row.name}; {least}"


def settled(asked: Mapping[str, Any], samplers: Samplers) -> tuple[Settings, list[Ignored]]:
    """The settings to render, and which of those asked for change no pixel.

    Args:
        asked: as `completed` gives it, without contradictions.
        samplers: that there are.
    """
    row = samplers[asked["sampler"]]
    schedule = schedule_of(row, asked["schedule"], samplers)
    own = row.algorithm == DIFFUSERS
    chosen = {**asked, "sampler": row.name, "schedule": AUTOMATIC if own else samplers.first_name(schedule)}
    if chosen["eta"] is None:
        chosen["eta"] = row.eta
    if chosen["discard_next_to_last_sigma"] == row.discards_next_to_last_sigma:
        chosen["discard_next_to_last_sigma"] = None
    chosen |= _as_counted(chosen, row, schedule)
    unguided = _is_without_guidance(chosen, row, schedule)
    if unguided:
        chosen |= {"cfg_scale": 1.0, "guidance_stop": 1.0}
    ignored = list(_ignored(chosen, row, schedule))
    neutral = {name: DEFAULTS[name] for name, _ in ignored}
    if "schedule" in neutral:
        neutral["schedule"] = row.schedule
    if unguided:
        ignored = list(_told_of_the_stop(ignored, asked["guidance_stop"]))
    if not row.takes_schedules and asked["schedule"] != AUTOMATIC:
        ignored.append(("schedule", f"on {row.name}"))
    complete = {**chosen, **neutral}
    return Settings(**{name: complete[name] for name in SETTING_NAMES}), ignored


def _as_counted(asked: Mapping[str, Any], row: Sampler, schedule: Schedule) -> dict[str, Any]:
    """Settings of which many numbers come to the same: each by one of these.

    A stop is where the last guided evaluation ends; an interval is at most as long as the picture.
    """
    found: dict[str, Any] = {}
    if (strength := _strength(asked)) is not None:
        made = steps_of_scheduler if row.algorithm == DIFFUSERS else steps_from_picture
        usual = DEFAULTS["denoising_strength"]
        found["denoising_strength"] = least_strength(asked["steps"], strength, made, usual)
    count, is_sure = max(1, _evaluations(asked, row, schedule)), is_counted(row, schedule)
    if not row.chooses_steps:
        stop = guided_of(count, asked["guidance_stop"]) / count
        if stop < 1 or is_sure:  # else more evaluations than are counted may follow, without guidance
            found["guidance_stop"] = stop
    if is_sure:
        found["deepcache_interval"] = min(asked["deepcache_interval"], max(2, count))
    return found


def _steps_within(evaluations: int, asked: Mapping[str, Any], row: Sampler, schedule: Schedule) -> int:
    """The most steps that take at most so many evaluations; 0 if none do."""
    steps = range(1, MAX_STEPS + 1)
    return bisect_right(
        steps, evaluations, key=lambda count: _evaluations({**asked, "steps": count}, row, schedule)
    )


def _ignored(asked: Mapping[str, Any], row: Sampler, schedule: Schedule) -> Iterator[Ignored]:
    """What surely changes no pixel; a doubtful case is left as it is."""
    yield from _ignored_by_the_sampler(asked, row)
    yield from _ignored_by_the_schedule(row, schedule)
    if _is_respaced(asked, row, schedule):
        where = f"on {row.name} from {row.restarts_from} steps on"
        yield from (("schedule", where), ("rho", where))
    yield from _ignored_by_the_prompts(asked, row, schedule)
    if asked["deepcache_interval"] == 1:
        yield "deepcache_branch", "where deepcache_interval is 1"
    elif is_counted(row, schedule) and _evaluations(asked, row, schedule) == 1:
        yield from ((name, "at one evaluation") for name in ("deepcache_interval", "deepcache_branch"))
    if not asked["init_image"]:
        yield "denoising_strength", "where there is no init_image"
    if asked["variation_strength"] == 0:
        yield "variation_seed", "where variation_strength is 0"
    size = (asked["seed_resize_from_width"], asked["seed_resize_from_height"])
    if size == (asked["width"], asked["height"]):
        yield "seed_resize_from_width", "where it is the picture's own size"
        yield "seed_resize_from_height", "where it is the picture's own size"


_OF_GUIDANCE = ("guidance_rescale", "negative_guidance_minimum_sigma", "guidance_stop")


def _told_of_the_stop(ignored: Iterable[Ignored], stop: float) -> Iterator[Ignored]:
    """What is ignored at scale 1, where it is the stop that makes it so."""
    where = f"where guidance_stop is {stop:g}"
    yield "cfg_scale", where
    for name, why in ignored:
        if name != "guidance_stop":
            yield name, where if name in _OF_GUIDANCE else why


def _ignored_by_the_prompts(asked: Mapping[str, Any], row: Sampler, schedule: Schedule) -> Iterator[Ignored]:
    texts = asked["prompt"], asked["negative_prompt"]
    if row.chooses_steps and not (asked["init_image"] or any(map(is_edited, texts))):
        yield "steps", f"on {row.name}"  # from a picture, they say where on its way it starts
    found = strands(*texts, asked["cfg_scale"], steps_of_prompt(asked["steps"], row))
    if len(found) == 1:  # there is but one row
        for name in _OF_GUIDANCE:
            yield name, f"where cfg_scale is {asked['cfg_scale']:g}"
    elif row.chooses_steps:
        yield "guidance_stop", f"on {row.name}"
    elif _guides_at_most_once(asked, row, schedule):
        yield "negative_guidance_minimum_sigma", "where no evaluation but the first has guidance"
    if not any(is_weighted(text) for strand in found for text in strand.said.texts):
        yield "emphasis", "where a prompt has no weights"


def _guides_at_most_once(asked: Mapping[str, Any], row: Sampler, schedule: Schedule) -> bool:
    is_known = asked["guidance_stop"] < 1 or is_counted(row, schedule)
    return is_known and guided_of(_evaluations(asked, row, schedule), asked["guidance_stop"]) <= 1


def _is_without_guidance(asked: Mapping[str, Any], row: Sampler, schedule: Schedule) -> bool:
    """Whether guidance stops before the first evaluation, and the picture is that of scale 1."""
    if row.chooses_steps or guided_of(_evaluations(asked, row, schedule), asked["guidance_stop"]):
        return False
    prompt, scale = asked["prompt"], asked["cfg_scale"]
    is_guided = coefficients(prompt, scale)[0] and any(weights_without_guidance(prompt, scale))
    return bool(is_guided) and not coefficients(prompt, 1.0)[0]


def _evaluations(asked: Mapping[str, Any], row: Sampler, schedule: Schedule) -> int:
    discard = asked["discard_next_to_last_sigma"]
    return evaluations_at(asked["steps"], row, schedule, discard, _strength(asked))


def _strength(asked: Mapping[str, Any]) -> float | None:
    """As `Settings.strength`."""
    return asked["denoising_strength"] if asked["init_image"] else None


def _steps_made(asked: Mapping[str, Any]) -> int:
    strength = _strength(asked)
    return int(asked["steps"]) if strength is None else steps_from_picture(asked["steps"], strength)


def _is_respaced(asked: Mapping[str, Any], row: Sampler, schedule: Schedule) -> bool:
    """Whether only the ends of the schedule count, and these are the model's own."""
    restarts = 0 < row.restarts_from <= asked["steps"] and not asked["discard_next_to_last_sigma"]
    whole = asked["sigma_min"] is None and asked["sigma_max"] is None and not asked["init_image"]
    return restarts and whole and schedule.starts_at_sigma_max and schedule.ends_at_sigma_min


def _ignored_by_the_sampler(asked: Mapping[str, Any], row: Sampler) -> Iterator[Ignored]:
    on = f"on {row.name}"
    quiet = _quiet(asked, row)
    for name in ("eta", "s_churn"):
        if name not in row.options:
            yield name, on
    for name in ("s_tmin", "s_tmax", "s_noise"):
        if name not in row.options:
            yield name, on
        elif quiet:
            yield name, quiet
    if row.brownian:
        yield "eta_noise_seed_delta", on
    elif quiet:
        yield "eta_noise_seed_delta", quiet


def _quiet(asked: Mapping[str, Any], row: Sampler) -> str:
    """Where the sampler adds no noise, in words; empty if it does, or if nobody knows."""
    if not isinstance(row.algorithm, str) or row.algorithm == DIFFUSERS:
        return ""
    for amount in ("eta", "s_churn"):
        if amount in row.options:
            return f"where {amount} is 0" if asked[amount] == 0 else ""
    if _steps_made(asked) < row.restarts_from:
        return f"on {row.name} below {row.restarts_from} steps"
    return "" if row.stochastic else f"on {row.name}"


def _ignored_by_the_schedule(row: Sampler, schedule: Schedule) -> Iterator[Ignored]:
    if row.algorithm == DIFFUSERS:  # its own constructor has all of them, as options
        for name in ("sigma_min", "sigma_max", "rho", "discard_next_to_last_sigma"):
            yield name, f"on {row.name}"
        return
    where = f"with the schedule {schedule.name}" if row.takes_schedules else f"on {row.name}"
    for name in ("sigma_min", "sigma_max", "rho"):
        if name not in (*schedule.options, *row.options):
            yield name, where
    if not row.takes_schedules:
        yield "discard_next_to_last_sigma", where
