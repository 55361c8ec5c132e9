from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from farm.errors import CellFailed
from farm.render.distilled import distilled
from farm.render.noise_levels import LEAST_SIGNAL, MOST_NOISE, rescaled_to_zero_snr, shifted
from farm.render.parameterization import Flow, Noise, Parameterization, Velocity, parameterization_of
from farm.render.samplers.euler import euler
from tests.render.oracles import STABLE_DIFFUSION, drive, k_diffusion, stable_diffusion

EPS = stable_diffusion()
V = parameterization_of(STABLE_DIFFUSION | {"prediction_type": "v_prediction"})
FLOW_CONFIG = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
FLOW = parameterization_of(FLOW_CONFIG)
SHIFTED = parameterization_of(FLOW_CONFIG | {"shift": 3.0})
ZERO_SNR = parameterization_of(STABLE_DIFFUSION | {"prediction_type": "v_prediction"}, zero_terminal_snr=True)

each_model = pytest.mark.parametrize(
    "model", [EPS, V, FLOW, SHIFTED, ZERO_SNR], ids=["eps", "v", "flow", "shifted flow", "zero snr"]
)


@pytest.mark.parity
@pytest.mark.parametrize(
    "config",
    [
        STABLE_DIFFUSION,
        STABLE_DIFFUSION | {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {},
        STABLE_DIFFUSION | {"trained_betas": list(np.linspace(0.001, 0.01, 50))},
    ],
    ids=["scaled_linear", "linear", "cosine", "defaults", "trained_betas"],
)
def test_noise_levels_are_those_of_diffusers(config: dict[str, Any]) -> None:
    """Which has betas in float32."""
    betas = DDPMScheduler.from_config(config).betas.double()
    alphas = (1 - betas).cumprod(0).numpy()
    ours = parameterization_of(config)
    np.testing.assert_allclose(ours.sigmas, ((1 - alphas) / alphas) ** 0.5, rtol=1e-5)
    assert len(ours.sigmas) == len(alphas)


def test_range_is_that_of_stable_diffusion() -> None:
    model = stable_diffusion()
    assert (model.sigma_max, model.sigma_min) == (
        pytest.approx(14.6146, abs=1e-4),
        pytest.approx(0.0292, abs=1e-4),
    )


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, Noise),
        ({"prediction_type": "epsilon"}, Noise),
        ({"prediction_type": "v_prediction"}, Velocity),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, Flow),
        ({"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"}, Flow),
        ({"_class_name": "DPMSolverMultistepScheduler", "flow_shift": 1.0}, Noise),
    ],
)
def test_the_scheduler_says_what_the_network_predicts(
    config: dict[str, Any], kind: type[Parameterization]
) -> None:
    assert type(parameterization_of(config)) is kind


# the contract


@each_model
@pytest.mark.parametrize("time", [1, 1.5, 17, 431.25, 999])
def test_time_and_sigma_are_inverse(time: float, model: Parameterization) -> None:
    assert model.time_at(float(model.sigma_at(np.array(time)))) == pytest.approx(time, abs=1e-6)


@each_model
def test_times_of_training_sigmas_rise_within_the_range(model: Parameterization) -> None:
    times = [model.time_at(float(sigma)) for sigma in model.sigmas]
    assert all(np.diff(times) > 0) and times[0] >= 0 and times[-1] <= 1000
    np.testing.assert_allclose(model.sigma_at(np.array(times)), model.sigmas, rtol=1e-6)


def test_times_end_where_training_did() -> None:
    assert (EPS.time_at(100.0), EPS.time_at(1e-6)) == (999, 0)
    assert float(FLOW.sigma_at(np.array(1000))) == pytest.approx(FLOW.sigma_max) == pytest.approx(9999)


@each_model
def test_a_distilled_model_reads_latents_as_its_model_does(model: Parameterization) -> None:
    few, x, output = distilled(model, 50), torch.randn(4, 2, 2), torch.randn(4, 2, 2)
    assert torch.equal(few.input(x, 2.0), model.input(x, 2.0))
    assert torch.equal(few.denoised(x, output, 2.0), model.denoised(x, output, 2.0))
    assert (few.sigma_max, few.sigma_min) == (model.sigma_max, pytest.approx(float(model.sigmas[19])))


@each_model
def test_a_distilled_model_is_asked_at_its_own_times(model: Parameterization) -> None:
    few = distilled(model, 50)
    times = {few.time_at(float(sigma)) for sigma in (*model.sigmas, 1e-6, 1e6)}
    assert times == {model.time_at(float(sigma)) for sigma in model.sigmas[19::20]}
    assert distilled(model, 0) is model


@each_model
def test_latents_of_training_are_shown_as_in_training(model: Parameterization) -> None:
    """Also those that begin at unit variance: the network is shown the noise itself."""
    noise = torch.randn(4, 2, 2, dtype=torch.float64)
    begun = model.initial(noise, 5.0, unit_variance=True)
    torch.testing.assert_close(model.input(begun, 5.0), noise)
    torch.testing.assert_close(model.initial(noise, 5.0), 5 * noise)


def training(model: Parameterization, clean: torch.Tensor, noise: torch.Tensor, sigma: float) -> Any:
    """What a network is shown in training, and what it learns to say; written out."""
    if isinstance(model, Flow):
        s = sigma / (1 + sigma)
        return (1 - s) * clean + s * noise, noise - clean
    alpha = 1 / (1 + sigma**2)
    shown = alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise
    if isinstance(model, Velocity):
        return shown, alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
    return shown, noise


@each_model
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.0])
def test_a_network_that_has_learnt_its_lesson_gives_the_clean_latents(
    sigma: float, model: Parameterization
) -> None:
    clean, noise = torch.randn(2, 4, 2, 2, dtype=torch.float64)
    shown, output = training(model, clean, noise, sigma)
    noisy = clean + model.initial(noise, sigma)
    torch.testing.assert_close(model.input(noisy, sigma), shown)
    torch.testing.assert_close(model.denoised(noisy, output, sigma), clean)


@each_model
def test_even_distances_begin_and_end_where_asked(model: Parameterization) -> None:
    made = model.evenly(9.7, 0.3, 7)
    assert made[0] == 9.7 and made[-1] == pytest.approx(0.3) and all(np.diff(made) < 0)
    assert model.evenly(1e9, 1e-9, 3)[0] == model.sigma_max
    assert model.evenly(1e9, 1e-9, 3)[-1] == pytest.approx(model.sigma_min)


# against the references


@pytest.mark.parity
@pytest.mark.parametrize(
    ("model", "wrapper"), [(EPS, "DiscreteEpsDDPMDenoiser"), (V, "DiscreteVDDPMDenoiser")], ids=["eps", "v"]
)
@pytest.mark.parametrize("sigma", [0.03, 0.5, 3.7, 14.6])
def test_discrete_models_are_read_as_k_diffusion_reads_them(
    sigma: float, model: Parameterization, wrapper: str
) -> None:
    asked: list[tuple[torch.Tensor, float]] = []

    def network(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        asked.append((x, float(time)))
        return torch.sin(x * 3)

    theirs = getattr(k_diffusion("external"), wrapper)(
        network, torch.from_numpy(1 / (1 + model.sigmas**2)), quantize=False
    )
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64) * sigma
    denoised = theirs(x, torch.tensor([sigma], dtype=torch.float64))
    [(shown, time)] = asked
    torch.testing.assert_close(model.input(x, sigma), shown, rtol=1e-10, atol=0)
    assert model.time_at(sigma) == pytest.approx(time, abs=1e-6)
    output = torch.sin(model.input(x, sigma) * 3)
    torch.testing.assert_close(model.denoised(x, output, sigma), denoised, rtol=1e-10, atol=1e-12)


def velocity(x: torch.Tensor, time: float) -> torch.Tensor:
    """Some network of a flow."""
    return torch.sin(2 * x + time / 300) - x / 3


def euler_of_ours(model: Parameterization, noise: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    def denoiser(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return model.denoised(x, velocity(model.input(x, sigma), model.time_at(sigma)), sigma)

    start = model.initial(noise, sigmas[0], unit_variance=True)
    return drive(euler(start, tuple(sigmas), None), denoiser)[0]  # type: ignore[arg-type]


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("model", [FLOW, SHIFTED], ids=["shift 1", "shift 3"])
def test_euler_on_a_flow_is_that_of_diffusers(model: Flow, steps: int) -> None:
    """On our sigmas. Its `step` rounds float64 latents to float32 each time; the formula itself does not."""
    sigmas = [*model.evenly(model.sigma_max, model.sigma_min, steps).tolist(), 0.0]
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(FLOW_CONFIG)
    scheduler.set_timesteps(steps)
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64) / (
        1 + torch.tensor(sigmas, dtype=torch.float64)
    )
    noise = torch.randn(1, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(steps))
    x, exact = noise, noise
    for s, lower, label in zip(scheduler.sigmas, scheduler.sigmas[1:], scheduler.timesteps, strict=False):
        x = scheduler.step(velocity(x, 1000 * float(s)), label, x).prev_sample
        exact = exact + (lower - s) * velocity(exact, 1000 * float(s))
    ours = euler_of_ours(model, noise, sigmas)
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-10)


@pytest.mark.parity
@pytest.mark.parametrize("shift", [1.0, 1.15, 3.0, 6.0])
def test_training_levels_of_a_flow_are_those_of_diffusers(shift: float) -> None:
    """But the last, where theirs is pure noise."""
    theirs = (
        FlowMatchEulerDiscreteScheduler.from_config(FLOW_CONFIG | {"shift": shift}).sigmas.double().flip(0)
    )
    sigmas = parameterization_of(FLOW_CONFIG | {"shift": shift}).sigmas
    ours = sigmas / (1 + sigmas)
    np.testing.assert_allclose(ours[:-1], theirs[:-1], atol=1e-7)
    assert (ours[-1], theirs[-1]) == (pytest.approx(MOST_NOISE), 1)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_a_flow_leans_to_noise_by_its_shift(shift: float) -> None:
    model = parameterization_of(FLOW_CONFIG | {"shift": shift})
    sigmas = model.evenly(model.sigma_max, model.sigma_min, 5)
    even = shifted(sigmas / (1 + sigmas), 1 / shift)
    np.testing.assert_allclose(np.diff(even)[1:], -0.24975, atol=1e-9)


def test_where_a_flow_starts_float32_latents_still_carry_the_picture() -> None:
    """One step from the most noise, in float32 as the latents are."""
    clean, noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sigmas = FLOW.evenly(FLOW.sigma_max, FLOW.sigma_min, 20).tolist()
    x = clean + sigmas[0] * noise
    lower = x + (x - FLOW.denoised(x, noise - clean, sigmas[0])) / sigmas[0] * (sigmas[1] - sigmas[0])
    shown, _ = training(FLOW, clean, noise, sigmas[1])
    assert float((FLOW.input(lower, sigmas[1]) - shown).abs().max()) < 2e-4


# zero terminal SNR


@pytest.mark.parity
@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler])
def test_zero_terminal_snr_is_that_of_diffusers_but_for_the_last_level(scheduler: Any) -> None:
    config = STABLE_DIFFUSION | {"rescale_betas_zero_snr": True}
    theirs = scheduler.from_config(config).alphas_cumprod.double().numpy()
    ours = 1 / (1 + parameterization_of(config).sigmas ** 2)
    np.testing.assert_allclose(ours[:-1], theirs[:-1], rtol=2e-3, atol=1e-6)
    assert ours[-1] == pytest.approx(LEAST_SIGNAL) and theirs[-1] in (0, 2**-24)


def test_zero_terminal_snr_keeps_the_first_level_and_ends_short_of_pure_noise() -> None:
    before = 1 / (1 + EPS.sigmas**2)
    after = rescaled_to_zero_snr(before)
    assert after[0] == pytest.approx(before[0]) and after[-1] == LEAST_SIGNAL
    np.testing.assert_allclose(
        np.diff(np.sqrt(after))[:-1] / np.diff(np.sqrt(before))[:-1], 1.0733, atol=1e-3
    )
    assert ZERO_SNR.sigma_max == pytest.approx(4518.8, abs=0.05)
    assert ZERO_SNR.sigma_min == pytest.approx(EPS.sigma_min)


@pytest.mark.parametrize(
    ("checkpoint", "asked", "rescales"),
    [(False, None, False), (True, None, True), (False, True, True), (True, False, False)],
)
def test_zero_terminal_snr_is_as_asked_else_as_the_checkpoint_says(
    checkpoint: bool, asked: bool | None, rescales: bool
) -> None:
    model = parameterization_of(STABLE_DIFFUSION | {"rescale_betas_zero_snr": checkpoint}, asked)
    assert (model.sigma_max > 4000) == rescales


def test_zero_terminal_snr_is_nothing_new_to_a_flow() -> None:
    np.testing.assert_array_equal(
        parameterization_of(FLOW_CONFIG, zero_terminal_snr=True).sigmas, FLOW.sigmas
    )


@pytest.mark.parametrize(
    "config",
    [
        STABLE_DIFFUSION | {"prediction_type": "sample"},
        STABLE_DIFFUSION | {"beta_schedule": "sigmoid"},
        FLOW_CONFIG | {"use_dynamic_shifting": True},
        FLOW_CONFIG | {"shift_terminal": 0.1},
        FLOW_CONFIG | {"invert_sigmas": True},
    ],
    ids=lambda config: list(config)[-1],
)
def test_what_is_not_supported_is_refused_in_one_line(config: dict[str, Any]) -> None:
    refused: Callable[..., Any] = parameterization_of
    with pytest.raises(CellFailed, match=r"^\w+ \S+ of the checkpoint is not supported; .* (is|are)$"):
        refused(config)
