"""How A1111 names what cells say of sampling and noise, in its infotext.

Keys and values are those of its versions 1.6 to 1.10; older ones read the names of samplers. What DDIM, PLMS
and UniPC do is as before 1.6, see docs/samplers.md. It has no keys for `guidance_stop` and DeepCache.
"""

from collections.abc import Mapping

from farm.cell import Settings, SettingValue
from farm.sampling import AUTOMATIC, BUILT_IN, SCHEDULES
from farm.scheduler_names import is_scheduler

Keys = Mapping[str, SettingValue]

_TITLES = {row.name: row.title for row in SCHEDULES}

_NAMED = {
    "karras": (
        "LMS", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun",
        "DPM++ 3M SDE",
    ),
    "exponential": ("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"),
}  # fmt: skip
"""Pairs that had names of their own, such as `DPM++ 2M Karras`; all versions read these."""

_LATER_AUTOMATIC = {
    "DPM2": "karras", "DPM2 a": "karras", "DPM++ 2S a": "karras", "DPM++ 2M": "karras", "DPM++ SDE": "karras",
    "DPM++ 2M SDE": "exponential", "DPM++ 2M SDE Heun": "exponential", "DPM++ 3M SDE": "exponential",
    "Restart": "karras",
}  # fmt: skip
"""What versions since 1.9 take a sampler's name alone for; `uniform` where nothing stands."""

_EMPHASES = {"no norm": "No norm", "comfyui": "ComfyUI", "ignore": "Ignore"}

_OF_THEIR_OWN = frozenset({"DDIM", "PLMS", "UniPC"})
"""Samplers for which A1111 has no schedule to choose."""


def sampler_keys(settings: Settings) -> Keys:
    """The sampler, and its schedule where the name alone would be taken for another one."""
    sampler, schedule = settings.sampler, settings.schedule
    if is_scheduler(sampler):
        return _scheduler_keys(sampler)
    title = _TITLES.get(schedule, schedule)
    if sampler in _NAMED.get(schedule, ()):
        return {"Sampler": f"{sampler} {title}"}
    return {"Sampler": sampler, "Schedule type": title if _is_told(sampler, schedule) else None}


def _scheduler_keys(sampler: str) -> Keys:
    """Of a scheduler of diffusers; in a name with a colon or a comma, sd-parsers finds no sampler."""
    name, _, options = sampler.partition("(")
    return {"Sampler": name.replace(":", " "), "Sampler options": options.removesuffix(")") or None}


def _is_told(sampler: str, schedule: str) -> bool:
    if schedule == AUTOMATIC:
        return False
    row = next((row for row in BUILT_IN.samplers if row.name == sampler), None)
    if row is None:
        return True
    own = row.schedule if sampler in _OF_THEIR_OWN else _LATER_AUTOMATIC.get(sampler, "uniform")
    return row.takes_schedules and schedule != own


def noise_keys(settings: Settings) -> Keys:
    """What the noise that a picture starts from is mixed of."""
    varied = settings.variation_strength > 0
    width, height = settings.seed_resize_from_width, settings.seed_resize_from_height
    return {
        "Variation seed": settings.variation_seed if varied else None,
        "Variation seed strength": settings.variation_strength if varied else None,
        "Seed resize from": f"{width}x{height}" if width and height else None,
    }


def sampling_keys(settings: Settings) -> Keys:
    """Everything else that is not as A1111 has it by default."""
    churned = settings.s_churn > 0
    return {
        "RNG": settings.rng.upper(),
        **_eta(settings),
        "Sigma churn": settings.s_churn or None,
        "Sigma tmin": settings.s_tmin or None if churned else None,
        "Sigma tmax": settings.s_tmax if churned else None,
        "Sigma noise": settings.s_noise if settings.s_noise != 1 else None,
        "Schedule min sigma": settings.sigma_min,
        "Schedule max sigma": settings.sigma_max,
        "Schedule rho": settings.rho if settings.rho != 7 else None,
        "Discard penultimate sigma": settings.discard_next_to_last_sigma,
        "NGMS": settings.negative_guidance_minimum_sigma or None,
        "Guidance stop": settings.guidance_stop if settings.guidance_stop != 1 else None,
        "CFG Rescale phi": settings.guidance_rescale or None,
        "Noise Schedule": "Zero Terminal SNR" if settings.zero_terminal_snr else None,
        "Emphasis": _EMPHASES.get(settings.emphasis),
        "Token merging ratio": settings.token_merging_ratio or None,
        **_deepcache(settings),
        "Init image": settings.init_image[:10] or None,
    }


def _deepcache(settings: Settings) -> Keys:
    if settings.deepcache_interval == 1:
        return {}
    return {
        "DeepCache interval": settings.deepcache_interval,
        "DeepCache branch": settings.deepcache_branch or None,
    }


def _eta(settings: Settings) -> Keys:
    if settings.sampler == "DDIM":
        return {"Eta DDIM": settings.eta or None}
    return {"Eta": settings.eta if settings.eta != 1 else None}
