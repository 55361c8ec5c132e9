"""How often samplers ask the model, and how many steps schedules make, at so many steps asked for."""

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from itertools import count

TRAINING_TIMESTEPS = 1000
"""Of all Stable Diffusion models; costs go by it."""


def once_per_step(steps: int) -> int:
    """Evaluations of a method that asks the model once a step."""
    return steps


def twice_but_last(steps: int) -> int:
    """Evaluations of a method that asks twice a step, but once in the step that ends at sigma 0."""
    return 2 * steps - 1


def once_more(steps: int) -> int:
    """Evaluations of a method that asks once a step, but twice in the first."""
    return steps + 1


def once_more_from_two(steps: int) -> int:
    """Evaluations of PNDM of diffusers, which asks twice in the first step, but not if it is the only one."""
    return steps + (steps > 1)


def with_runge_kutta(steps: int) -> int:
    """Evaluations of PNDM, which begins with three steps of four (a pseudo Runge-Kutta method)."""
    return steps + 9


def steps_from_picture(steps: int, strength: float) -> int:
    """The last so many of a schedule's steps are made of latents that are a picture and noise, as in A1111.

    Args:
        steps: as asked.
        strength: of denoising, 0 to 1; 1 still leaves all steps and no more.
    """
    return int(min(strength, 0.999) * steps) + 1


def steps_of_scheduler(steps: int, strength: float) -> int:
    """As `steps_from_picture`, but as in the pipelines of diffusers: one less, none at little strength."""
    return min(int(steps * strength), steps)


@lru_cache(maxsize=1 << 16)
def least_strength(steps: int, strength: float, made: Callable[[int, float], int], usual: float) -> float:
    """The strength that stands for all that come to the same steps: the shortest decimal, of these the least.

    The default stands for what it comes to itself.

    Args:
        steps: as asked.
        strength: of denoising, 0 to 1.
        made: how many steps are made of these; `steps_from_picture` or `steps_of_scheduler`.
        usual: the default.
    """
    wanted = made(steps, strength)
    if made(steps, usual) == wanted:
        return usual

    def least(digits: int) -> float:
        """With so many digits after the point."""
        whole: int = 10**digits
        return bisect_left(range(whole), wanted, key=lambda part: made(steps, part / whole)) / whole

    return next(one for one in map(least, count()) if made(steps, one) == wanted)


def adaptive(_: int) -> int:
    """Evaluations of DPM adaptive, about; they depend on the picture.

    Measured on tiny-cats with eta 1, median of six pictures: 49, 70, 79 and 104 at CFG scale 1, 4, 7 and 12.
    """
    return 80


def ddim_steps(steps: int) -> int:
    """How many timesteps CompVis's `uniform` discretisation makes: often a few more than asked for."""
    stride = ddim_stride(steps)
    return math.ceil((TRAINING_TIMESTEPS - 1) / stride)


def ddim_stride(steps: int) -> int:
    """How many training timesteps lie between two of the timesteps 1, 1 + stride, … below 1000.

    Where the last of them would be 1000, A1111 takes a step more.
    """
    stride = TRAINING_TIMESTEPS // min(steps, TRAINING_TIMESTEPS)
    if (TRAINING_TIMESTEPS - 1) % stride or stride == 1:
        return stride
    return TRAINING_TIMESTEPS // ((TRAINING_TIMESTEPS - 1) // stride + 1)
