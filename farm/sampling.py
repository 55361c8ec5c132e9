"""Samplers and schedules as plain data: names, aliases, costs. `farm.render` implements the rows.

A row of A1111's means what it means there (k-diffusion's functions, called as A1111 calls them); its Karras
forms are a sampler plus a schedule.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from farm.counting import (
    adaptive,
    ddim_steps,
    once_more,
    once_more_from_two,
    once_per_step,
    twice_but_last,
    with_runge_kutta,
)
from farm.scheduler_names import Chosen, chosen, is_scheduler

AUTOMATIC = "automatic"
"""The schedule that a sampler has of its own."""

DIFFUSERS = "diffusers"
"""The algorithm of rows that are schedulers of diffusers."""

SCHEDULER_STEP_OPTIONS = ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise")
"""Settings that are handed to the schedulers of diffusers whose `step` takes them."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A noise schedule that a job can name.

    Attributes:
        name: as jobs write it.
        title: as A1111 writes it.
        function: what gives the sigmas; of `farm.render.schedules` by its name, or a plugin's own, called as
            those are.
        source: where it is defined.
        steps: how many steps it makes of so many.
        starts_at_sigma_max: whether the first sigma is the largest one, whatever the steps.
        ends_at_sigma_min: whether the last sigma above 0 is the smallest one, if there are several.
        options: the settings that it depends on, beside the steps.
    """

    name: str
    title: str
    function: str | Callable[..., Sequence[float]]
    source: str
    steps: Callable[[int], int] = lambda steps: steps
    starts_at_sigma_max: bool = True
    ends_at_sigma_min: bool = False
    options: tuple[str, ...] = ("sigma_min", "sigma_max")


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler that a job can name.

    Attributes:
        name: as A1111 writes it.
        algorithm: what implements it: of `farm.render.samplers` by its name, or a plugin's own generator,
            called as those are.
        aliases: what people type instead.
        order: of the method's local error.
        evaluations: of the model, at n steps of its schedule.
        stochastic: whether it adds noise while it samples, at its default settings.
        source: where the algorithm is defined.
        schedule: the row of SCHEDULES that is meant by `automatic`.
        takes_schedules: whether others can be named.
        options: the settings that are handed to the algorithm.
        eta: what `eta` is if nobody says; None where it is no option.
        fixed: what else is handed to the algorithm.
        brownian: whether its noise follows a Brownian path (SDE solvers) instead of being drawn in order.
        discards_next_to_last_sigma: whether one step more is scheduled and the sigma before the last dropped.
        starts_at_unit_variance: whether the first latents are scaled as in training, to variance
            sigma² + 1, and not to sigma² as k-diffusion does.
        ends_at_sigma_min: whether the last step leads to the model's smallest sigma and not to 0.
        distilled_at: how many of the training timesteps, evenly spaced and the last among them, the network
            was distilled at, and is asked at; 0 is all.
        chooses_steps: whether it takes as many steps as it finds necessary.
        restarts_from: steps from which it goes back up, and spaces the sigmas between the first and the last
            anew; 0 is never.
        starts_from_pictures: whether it can start from a picture and noise.
    """

    name: str
    algorithm: str | Callable[..., Any]
    aliases: tuple[str, ...]
    order: int
    evaluations: Callable[[int], int]
    stochastic: bool
    source: str
    schedule: str = "uniform"
    takes_schedules: bool = True
    options: tuple[str, ...] = ()
    eta: float | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    brownian: bool = False
    discards_next_to_last_sigma: bool = False
    starts_at_unit_variance: bool = False
    ends_at_sigma_min: bool = False
    distilled_at: int = 0
    chooses_steps: bool = False
    restarts_from: int = 0
    starts_from_pictures: bool = True

    def discards(self, asked: bool | None) -> bool:
        """Whether one step more is scheduled and the sigma before the last dropped.

        Args:
            asked: as `Settings.discard_next_to_last_sigma`.
        """
        return self.takes_schedules and (self.discards_next_to_last_sigma if asked is None else asked)


_CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")
_ETA = ("eta", "s_noise")
_KARRAS_ET_AL = "Karras et al. 2022 (arXiv:2206.00364), k-diffusion"
_DPM_SOLVER = "Lu et al. 2022 (arXiv:2206.00927), k-diffusion"
_DPM_SOLVER_PP = "Lu et al. 2022 (arXiv:2211.01095), k-diffusion"

SAMPLERS: tuple[Sampler, ...] = (
    Sampler("Euler a", "euler_ancestral", ("k_euler_a", "k_euler_ancestral", "euler_ancestral"), 1,
            once_per_step, True, "k-diffusion", options=_ETA, eta=1.0),
    Sampler("Euler", "euler", ("k_euler",), 1, once_per_step, False, _KARRAS_ET_AL, options=_CHURN),
    Sampler("LMS", "lms", ("k_lms",), 4, once_per_step, False, "linear multistep, k-diffusion"),
    Sampler("Heun", "heun", ("k_heun",), 2, twice_but_last, False, _KARRAS_ET_AL, options=_CHURN),
    Sampler("DPM2", "dpm_2", ("k_dpm_2", "dpm_2"), 2, twice_but_last, False, _KARRAS_ET_AL + " (midpoint)",
            options=_CHURN, discards_next_to_last_sigma=True),
    Sampler("DPM2 a", "dpm_2_ancestral", ("k_dpm_2_a", "dpm_2_ancestral"), 2, twice_but_last, True,
            "k-diffusion", options=_ETA, eta=1.0, discards_next_to_last_sigma=True),
    Sampler("DPM++ 2S a", "dpmpp_2s_ancestral", ("k_dpmpp_2s_a", "dpmpp_2s_ancestral"), 2, twice_but_last,
            True, _DPM_SOLVER_PP, options=_ETA, eta=1.0),
    Sampler("DPM++ 2M", "dpmpp_2m", ("k_dpmpp_2m", "dpmpp_2m"), 2, once_per_step, False, _DPM_SOLVER_PP),
    Sampler("DPM++ SDE", "dpmpp_sde", ("k_dpmpp_sde", "dpmpp_sde"), 2, twice_but_last, True, _DPM_SOLVER_PP,
            options=_ETA, eta=1.0, brownian=True),
    Sampler("DPM++ 2M SDE", "dpmpp_2m_sde", ("k_dpmpp_2m_sde", "dpmpp_2m_sde"), 2, once_per_step, True,
            _DPM_SOLVER_PP, options=_ETA, eta=1.0, brownian=True),
    Sampler("DPM++ 2M SDE Heun", "dpmpp_2m_sde", ("k_dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun"), 2,
            once_per_step, True, _DPM_SOLVER_PP, options=_ETA, eta=1.0, brownian=True,
            fixed={"solver_type": "heun"}),
    Sampler("DPM++ 3M SDE", "dpmpp_3m_sde", ("k_dpmpp_3m_sde", "dpmpp_3m_sde"), 3, once_per_step, True,
            _DPM_SOLVER_PP, options=_ETA, eta=1.0, brownian=True, discards_next_to_last_sigma=True),
    Sampler("DPM fast", "dpm_fast", ("k_dpm_fast", "dpm_fast"), 3, once_per_step, True, _DPM_SOLVER,
            takes_schedules=False, options=(*_ETA, "sigma_min"), eta=1.0),
    Sampler("DPM adaptive", "dpm_adaptive", ("k_dpm_ad", "dpm_adaptive"), 3, adaptive, True, _DPM_SOLVER,
            takes_schedules=False, options=(*_ETA, "sigma_min"), eta=1.0, chooses_steps=True),
    Sampler("Restart", "restart", (), 2, twice_but_last, True, "Xu et al. 2023 (arXiv:2306.14878)",
            schedule="karras", options=("s_noise",), restarts_from=20),
    Sampler("DDIM", "ddim", (), 1, once_per_step, False, "Song et al. 2020 (arXiv:2010.02502), CompVis",
            schedule="ddim", options=("eta",), eta=0.0, starts_at_unit_variance=True, ends_at_sigma_min=True),
    Sampler("PLMS", "plms", (), 4, once_more, False, "Liu et al. 2022 (arXiv:2202.09778), CompVis",
            schedule="ddim", starts_at_unit_variance=True, ends_at_sigma_min=True,
            starts_from_pictures=False),
    Sampler("UniPC", "unipc", ("uni_pc",), 3, once_per_step, False, "Zhao et al. 2023 (arXiv:2302.04867)",
            schedule="sgm_uniform", starts_at_unit_variance=True, ends_at_sigma_min=True),
    Sampler("LCM", "lcm", ("k_lcm",), 1, once_per_step, True, "Luo et al. 2023 (arXiv:2310.04378)",
            options=("time_at",), distilled_at=50),
)  # fmt: skip

SCHEDULES: tuple[Schedule, ...] = (
    Schedule("uniform", "Uniform", "uniform", "k-diffusion: timesteps evenly spaced",
             ends_at_sigma_min=True),
    Schedule("karras", "Karras", "karras", "Karras et al. 2022 (arXiv:2206.00364), equation 5",
             options=("sigma_min", "sigma_max", "rho"), ends_at_sigma_min=True),
    Schedule("exponential", "Exponential", "exponential", "k-diffusion: logarithms of sigma evenly spaced",
             ends_at_sigma_min=True),
    Schedule("sgm_uniform", "SGM Uniform", "sgm_uniform",
             "Stability's generative-models: the last of n + 1 timesteps left out"),
    Schedule("simple", "Simple", "simple", "ComfyUI: every so-many-th training sigma", options=()),
    Schedule("normal", "Normal", "uniform", "ComfyUI: timesteps evenly spaced",  # another name of uniform
             ends_at_sigma_min=True),
    Schedule("beta", "Beta", "beta", "Lee et al. 2024 (arXiv:2407.12173)", ends_at_sigma_min=True),
    Schedule("ddim", "DDIM", "ddim", "CompVis: training timesteps at a whole stride, offset 1",
             steps=ddim_steps, starts_at_sigma_max=False, options=()),
)  # fmt: skip


def _scheduler_row(named: Chosen) -> Sampler:
    """Of a scheduler of diffusers; its schedule is among its own options."""
    return Sampler(
        name=named.spelling,
        algorithm=DIFFUSERS,
        aliases=(),
        order=named.solver_order,
        evaluations=_evaluations(named),
        stochastic=named.is_stochastic,
        source="diffusers",
        takes_schedules=False,
        options=tuple(name for name in named.scheduler.step if name in SCHEDULER_STEP_OPTIONS),
        eta=0.0 if "eta" in named.scheduler.step else None,  # as StableDiffusionPipeline, whatever the class
        fixed={"chosen": named},
        starts_from_pictures=named.scheduler.adds_noise,
    )


def _evaluations(named: Chosen) -> Callable[[int], int]:
    if named.scheduler.order > 1:
        return twice_but_last
    if named.scheduler.name == "PNDMScheduler":
        # checkpoints of Stable Diffusion say skip_prk_steps: true, unlike the class
        return once_more_from_two if named.options.get("skip_prk_steps", True) else with_runge_kutta
    return once_per_step


class Samplers:
    """The samplers and schedules that a job can name: those of this file and those of its plugins."""

    def __init__(
        self, samplers: Sequence[Sampler] = SAMPLERS, schedules: Sequence[Schedule] = SCHEDULES
    ) -> None:
        self.samplers = tuple(samplers)
        self.schedules = {row.name: row for row in schedules}
        self._rows = {row.name: row for row in samplers}
        self._named: dict[str, tuple[Sampler, str]] = {}
        for name, aliases, sampler, schedule in self._names():
            for spelling in (name, *aliases):
                self._named.setdefault(spelling.casefold(), (sampler, schedule))
        firsts: dict[Hashable, str] = {}
        for row in schedules:
            firsts.setdefault(_made(row), row.name)
        self._first_names = {row.name: firsts[_made(row)] for row in schedules}

    def __getitem__(self, name: str) -> Sampler:
        """The row of a sampler's canonical or other name.

        Raises:
            KeyError: there is no such sampler.
        """
        return self._rows.get(name) or self.find(name)[0]

    def find(self, name: str) -> tuple[Sampler, str]:
        """The row that is called `name`, in any case or by an alias, and the schedule that its name says.

        Raises:
            KeyError: there is no such sampler.
            BadScheduler: it is a scheduler of diffusers that cannot be used.
        """
        if (found := self._named.get(name.strip().casefold())) is not None:
            return found
        if is_scheduler(name):
            return _scheduler_row(chosen(name)), AUTOMATIC
        raise KeyError(name)

    def first_name(self, schedule: Schedule) -> str:
        """Of the names under which the same sigmas are listed, the first."""
        return self._first_names[schedule.name]

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Everything that can be written for a sampler: canonical names, each with its aliases."""
        return {name: aliases for name, aliases, _, _ in self._names()}

    def _names(self) -> Iterator[tuple[str, tuple[str, ...], Sampler, str]]:
        for row in self.samplers:
            yield row.name, row.aliases, row, AUTOMATIC
            for schedule in self.schedules.values() if row.takes_schedules else ():
                endings = _ENDINGS.get(schedule.name, ())
                short = tuple(alias + ending for alias in row.aliases for ending in endings)
                yield f"{row.name} {schedule.title}", short, row, schedule.name


_ENDINGS: Mapping[str, tuple[str, ...]] = {"karras": ("_ka",), "exponential": ("_exp",)}
"""What A1111 puts behind an alias to say the schedule."""


def _made(schedule: Schedule) -> Hashable:
    return schedule.function, schedule.options, schedule.steps


BUILT_IN = Samplers()
"""Without those of plugins."""
