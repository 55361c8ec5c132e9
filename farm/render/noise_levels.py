"""The noise levels that a network was trained at, by its `scheduler_config.json`. Without torch or NumPy."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from operator import mul
from typing import Any

from farm.cell import Settings
from farm.errors import CellFailed, described
from farm.sampling import Sampler, Schedule
from farm.scheduler_names import FLOW, predicted

DEFAULTS = {"beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 1000, "beta_schedule": "linear"}
"""Of the schedulers of diffusers, for what a `scheduler_config.json` does not say."""

LEAST_SIGNAL = 4.8973451890853435e-08
"""The last alphas_cumprod of a zero terminal SNR, as in A1111 and ComfyUI: sigma ends at 4518.8, not at ∞."""

MOST_NOISE = 0.9999
"""The largest s of a flow: at 1 sigma is infinite; at 9999 float32 latents still carry a picture, to 1e-3."""


class OutOfRange(CellFailed):
    """A sigma that leaves nothing of a model's noise levels.

    Attributes:
        setting: at fault.
        what: is wrong with it.
    """

    def __init__(self, setting: str, what: str) -> None:
        super().__init__(f"{setting} {what}")
        self.setting = setting
        self.what = what


def log_sigmas_of(config: Mapping[str, Any], zero_terminal_snr: bool | None = None) -> list[float]:
    """Natural logarithms of the training noise levels, rising.

    Args:
        config: the file's content.
        zero_terminal_snr: whether training ended in pure noise; None is as the file says. A flow always does.

    Raises:
        CellFailed: for noise levels that are not supported.
    """
    config = DEFAULTS | dict(config)
    if zero_terminal_snr is not None:
        config["rescale_betas_zero_snr"] = zero_terminal_snr
    try:
        levels = _of_a_flow(config) if predicted(config) == FLOW else _of_betas(config)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # whatever the file may say
        raise CellFailed(f"the checkpoint's noise levels cannot be computed: {described(error)}") from error
    if any(not math.isfinite(lower) or lower > higher for lower, higher in pairwise([*levels, math.inf])):
        raise CellFailed("the checkpoint's noise levels do not rise")
    return levels


def sigma_range(
    settings: Settings, schedule: Schedule, smallest: float, largest: float
) -> tuple[float, float]:
    """The smallest and the largest sigma of a schedule: as asked, else the model's.

    Args:
        settings: resolved.
        schedule: the row of `settings.schedule`.
        smallest: sigma of the model.
        largest: sigma of the model.

    Raises:
        OutOfRange: there is nothing of the model's range between them.
    """
    low = smallest if settings.sigma_min is None else settings.sigma_min
    high = largest if settings.sigma_max is None else settings.sigma_max
    for_model = f"is not allowed for {settings.model} with the schedule {schedule.name}"
    if "sigma_max" in schedule.options and high <= smallest:
        raise OutOfRange("sigma_max", f"{high:g} {for_model}; more than {smallest:.4g} is")
    if "sigma_min" in schedule.options and low >= min(high, largest):
        raise OutOfRange("sigma_min", f"{low:g} {for_model}; less than {min(high, largest):.6g} is")
    return low, high


def ends_for(sampler: Sampler, log_sigmas: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest noise level at which a sampler asks a network.

    Args:
        sampler: its row.
        log_sigmas: that the network was trained at.
    """
    return math.exp(log_sigmas[stride_of(sampler.distilled_at, log_sigmas) - 1]), math.exp(log_sigmas[-1])


def stride_of(distilled_at: int, levels: Sequence[float]) -> int:
    """How many training timesteps lie between two of those that are left, as `Sampler.distilled_at` says."""
    return len(levels) // distilled_at if distilled_at else 1


def shifted(s: Any, shift: float) -> Any:
    """Leans a flow's s to noise; a shift of 1/shift undoes it. Esser et al. 2024, section 5.3.2."""
    return shift * s / (1 + (shift - 1) * s)


def shift_of(config: Mapping[str, Any]) -> float:
    """How far a flow leans to noise."""
    return float(config.get("shift", config.get("flow_shift", 1.0)))


def rescaled_to_zero_snr(alphas_cumprod: Sequence[float]) -> list[float]:
    """Lin et al. 2023 (arXiv:2305.08891), algorithm 1; the last level stays short of pure noise.

    Args:
        alphas_cumprod: share of the picture's variance at each training timestep, falling.
    """
    first, last = math.sqrt(alphas_cumprod[0]), math.sqrt(alphas_cumprod[-1])
    signal = [(math.sqrt(alpha) - last) * first / (first - last) for alpha in alphas_cumprod]
    return [*(one**2 for one in signal[:-1]), LEAST_SIGNAL]


def _of_betas(config: Mapping[str, Any]) -> list[float]:
    alphas_cumprod = list(accumulate((1 - beta for beta in _betas(config)), mul))
    if config.get("rescale_betas_zero_snr"):
        alphas_cumprod = rescaled_to_zero_snr(alphas_cumprod)
    return [0.5 * math.log((1 - alpha) / alpha) for alpha in alphas_cumprod]


def _of_a_flow(config: Mapping[str, Any]) -> list[float]:
    for name in ("use_dynamic_shifting", "invert_sigmas", "shift_terminal"):
        if value := config.get(name):
            raise CellFailed(not_supported(name, value, "flow without it is"))
    count, shift = config["num_train_timesteps"], shift_of(config)
    line = (min(shifted(step / count, shift), MOST_NOISE) for step in range(1, count + 1))
    return [math.log(s / (1 - s)) for s in line]


def _betas(config: Mapping[str, Any]) -> Iterator[float]:
    if config.get("trained_betas"):
        return map(float, config["trained_betas"])
    start, end, count = config["beta_start"], config["beta_end"], config["num_train_timesteps"]
    match config["beta_schedule"]:
        case "scaled_linear":
            return (root**2 for root in _evenly(start**0.5, end**0.5, count))
        case "linear":
            return _evenly(start, end, count)
        case "squaredcos_cap_v2":
            return _cosine_betas(count)
        case other:
            supported = "scaled_linear, linear and squaredcos_cap_v2 are"
            raise CellFailed(not_supported("beta_schedule", other, supported))


def _evenly(first: float, last: float, count: int) -> Iterator[float]:
    return (first + (last - first) * step / (count - 1) for step in range(count))


def _cosine_betas(count: int) -> Iterator[float]:
    """Nichol & Dhariwal 2021 (arXiv:2102.09672), equation 17, and the cap of 0.999 below it."""
    kept = [math.cos((step / count + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(count + 1)]
    return (min(1 - after / before, 0.999) for before, after in zip(kept, kept[1:]))


def not_supported(name: str, value: Any, supported: str) -> str:
    """The words for a setting of a checkpoint that cannot be had."""
    return f"{name} {value!r} of the checkpoint is not supported; {supported}"
