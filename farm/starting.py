"""Where pictures start: from noise alone, or from a picture and noise; and the steps that this leaves."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from farm.cell import Settings
from farm.counting import TRAINING_TIMESTEPS, ddim_steps, ddim_stride, steps_from_picture
from farm.sampling import Sampler, Schedule


class InitPicture(NamedTuple):
    """A picture to start from, at a size.

    Attributes:
        init_image: the SHA-256 of its file.
        width: in pixels.
        height: in pixels.
    """

    init_image: str
    width: int
    height: int

    @property
    def bytes_of_pixels(self) -> int:
        """With a byte for each of three channels."""
        return 3 * self.width * self.height


def init_pictures(cells: Iterable[Settings]) -> set[InitPicture]:
    """The pictures that cells start from."""
    return {InitPicture(one.init_image, one.width, one.height) for one in cells if one.init_image}


def steps_walked(
    steps: int, row: Sampler, schedule: Schedule, discard: bool | None, strength: float | None
) -> int:
    """How many steps a sampler makes of so many that are asked for; from a picture, the last ones.

    Args:
        steps: as asked; some schedules make more of them.
        row: of the sampler; not one of diffusers.
        schedule: that it walks down.
        discard: as `Settings.discard_next_to_last_sigma`.
        strength: as `Settings.strength`.
    """
    made = steps
    if row.takes_schedules:
        discarded = row.discards(discard)
        made = schedule.steps(steps + discarded) - discarded
    return made if strength is None else min(made, steps_from_picture(steps, strength))


def start_of(settings: Settings, row: Sampler, schedule: Schedule, name: str) -> tuple[Hashable, ...]:
    """Names what is mixed with the noise, and how much of that: the first sigma, and how it scales latents.

    Args:
        settings: resolved.
        row: of the sampler; one whose first question is about these latents.
        schedule: that it walks down.
        name: of the schedule; equal for those that have the same sigmas.
    """
    if settings.init_image:
        picture = (settings.init_image, settings.other_vae)
        return (*picture, settings.zero_terminal_snr, *_level(settings, row, schedule, name))
    known = 0 if settings.sigma_max is None else row.distilled_at  # these round a sigma's time
    sigma = (settings.sigma_max, settings.zero_terminal_snr, known)
    if schedule.starts_at_sigma_max:
        return (*sigma, row.starts_at_unit_variance)
    spaced = settings.steps + row.discards(settings.discard_next_to_last_sigma)
    shape = (settings.schedule, settings.sigma_min, settings.rho, _place(schedule, name, spaced, 0))
    return (*sigma, row.starts_at_unit_variance, *shape)


def _level(settings: Settings, row: Sampler, schedule: Schedule, name: str) -> tuple[Hashable, ...]:
    """Names the sigma at which a picture is begun that starts from another one."""
    discard, known = settings.discard_next_to_last_sigma, row.distilled_at
    spaced = settings.steps + row.discards(discard)
    whole = steps_walked(settings.steps, row, schedule, discard, None)
    index = whole - steps_walked(settings.steps, row, schedule, discard, settings.strength)
    if index == 0 and schedule.starts_at_sigma_max:
        return (settings.sigma_max, known if settings.sigma_max is not None else 0)
    if schedule.ends_at_sigma_min and index == spaced - 1:
        return ("the smallest", settings.sigma_min, known)
    options = tuple(getattr(settings, option) for option in schedule.options)
    return (options, known, _place(schedule, name, spaced, index))


def _place(schedule: Schedule, name: str, spaced: int, index: int) -> Hashable:
    """Names the sigma at an index of a schedule's, by what it is where that is known."""
    function = schedule.function if isinstance(schedule.function, str) else ""
    return LEVELS[function](spaced, index) if function in LEVELS else (name, spaced, index)


def _evenly(way: str) -> Callable[[int, int], Hashable]:
    """Of schedules that space something evenly, from the largest sigma to the smallest."""
    return lambda steps, index: (way, Fraction(index, max(1, steps - 1)))


LEVELS: Mapping[str, Callable[[int, int], Hashable]] = {
    "uniform": _evenly("time"),
    "sgm_uniform": lambda steps, index: ("time", Fraction(index, steps)),  # as uniform, the last left out
    "karras": _evenly("karras"),
    "exponential": _evenly("exponential"),
    "beta": _evenly("beta"),
    "simple": lambda steps, index: ("simple", int(index * (TRAINING_TIMESTEPS / steps))),
    "ddim": lambda steps, index: ("ddim", (ddim_steps(steps) - 1 - index) * ddim_stride(steps)),
}
"""By `farm.sampling.Schedule.function`: names a sigma, given the steps and which one it is, from 0.

Equal names are equal sigmas, at equal options; a plugin's are told apart by their steps.
"""


def image_encoding(settings: Settings) -> Hashable | None:
    """Names the picture as the VAE is to see it: equal ones are encoded once; None is from noise."""
    if not settings.init_image:
        return None
    size = (settings.width, settings.height)
    return (settings.model, settings.precision, settings.other_vae, settings.init_image, *size)
