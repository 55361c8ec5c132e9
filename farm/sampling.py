"""Samplers and schedules as plain data: names, aliases, costs. `farm.render` implements the rows."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler that a job can name.

    Attributes:
        name: as A1111 writes it.
        algorithm: the function of `farm.render.samplers` that implements it.
        schedule: the row of `farm.render.schedules` that gives its sigmas.
        aliases: what people type instead.
        order: of the method's local error.
        evaluations: of the model, at n steps.
        stochastic: whether it adds noise while it samples.
        discards_penultimate_sigma: whether one step more is scheduled and the sigma before the last dropped,
            as A1111 does for the DPM2 family.
        source: where the algorithm is defined.
    """

    name: str
    algorithm: str
    schedule: str
    aliases: tuple[str, ...]
    order: int
    evaluations: Callable[[int], int]
    stochastic: bool
    discards_penultimate_sigma: bool
    source: str


def once_per_step(steps: int) -> int:
    """Evaluations of a method that asks the model once a step."""
    return steps


def twice_but_last(steps: int) -> int:
    """Evaluations of a method that asks twice a step, but once in the step that ends at sigma 0."""
    return 2 * steps - 1


_KARRAS_ET_AL = "Karras et al. 2022 (arXiv:2206.00364), k-diffusion"
_ALGORITHMS = (
    # name, algorithm, alias, order, evaluations, stochastic, discards, source
    ("Euler a", "euler_ancestral", "k_euler_a", 1, once_per_step, True, False, "k-diffusion"),
    ("Euler", "euler", "k_euler", 1, once_per_step, False, False, _KARRAS_ET_AL),
    ("LMS", "lms", "k_lms", 4, once_per_step, False, False, "linear multistep, k-diffusion"),
    ("Heun", "heun", "k_heun", 2, twice_but_last, False, False, _KARRAS_ET_AL),
    ("DPM2", "dpm_2", "k_dpm_2", 2, twice_but_last, False, True, _KARRAS_ET_AL + " (DPM-Solver-2 midpoint)"),
    (
        "DPM++ 2M", "dpmpp_2m", "k_dpmpp_2m", 2, once_per_step, False, False,
        "Lu et al. 2022 (arXiv:2211.01095), k-diffusion",
    ),
)  # fmt: skip


def _rows() -> tuple[Sampler, ...]:
    plain = [
        Sampler(name, algorithm, "uniform", (alias,), order, cost, noisy, discards, source)
        for name, algorithm, alias, order, cost, noisy, discards, source in _ALGORITHMS
    ]
    karras = [
        Sampler(
            f"{row.name} Karras", row.algorithm, "karras", tuple(f"{alias}_ka" for alias in row.aliases),
            row.order, row.evaluations, row.stochastic, row.discards_penultimate_sigma, row.source,
        )
        for row in plain
    ]  # fmt: skip
    return (*plain, *karras)


SAMPLERS: tuple[Sampler, ...] = _rows()


def find_sampler(name: str) -> Sampler | None:
    """The row that is called `name`, in any case or by an alias; None if there is none."""
    wanted = name.strip().casefold()
    for row in SAMPLERS:
        if wanted in (row.name.casefold(), *row.aliases):
            return row
    return None
