import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from farm.errors import CellFailed
from farm.render.parameterization import parameterization_of
from tests.render.oracles import STABLE_DIFFUSION, stable_diffusion


@pytest.mark.parametrize(
    "config",
    [
        STABLE_DIFFUSION,
        STABLE_DIFFUSION | {"beta_schedule": "linear"},
        {},
        STABLE_DIFFUSION | {"trained_betas": list(np.linspace(0.001, 0.01, 50))},
    ],
    ids=["scaled_linear", "linear", "defaults", "trained_betas"],
)
def test_noise_levels_are_those_of_diffusers(config: dict) -> None:
    alphas = DDPMScheduler.from_config(config).alphas_cumprod.double().numpy()
    ours = parameterization_of(config)
    np.testing.assert_allclose(np.exp(ours.log_sigmas), ((1 - alphas) / alphas) ** 0.5, rtol=1e-3)
    assert ours.last_time == len(alphas) - 1


def test_range_is_that_of_stable_diffusion() -> None:
    model = stable_diffusion()
    assert (model.sigma_max, model.sigma_min) == (
        pytest.approx(14.6146, abs=1e-4),
        pytest.approx(0.0292, abs=1e-4),
    )


@pytest.mark.parametrize("time", [0, 0.5, 17, 431.25, 999])
def test_time_and_sigma_are_inverse(time: float) -> None:
    model = stable_diffusion()
    assert model.time_at(float(model.sigma_at(np.array(time)))) == pytest.approx(time, abs=1e-6)


def test_times_end_where_training_did() -> None:
    model = stable_diffusion()
    assert (model.time_at(100.0), model.time_at(1e-6)) == (999, 0)


def test_a_network_that_knows_the_noise_gives_the_clean_latents() -> None:
    model, clean, noise = stable_diffusion(), torch.randn(4, 2, 2), torch.randn(4, 2, 2)
    noisy = clean + model.initial(noise, 5.0)
    torch.testing.assert_close(model.denoised(noisy, noise, 5.0), clean)
    unit = model.input(torch.randn(100_000) * (1 + 5.0**2) ** 0.5, 5.0)
    assert float(unit.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prediction_type", "v_prediction"),
        ("prediction_type", "sample"),
        ("beta_schedule", "squaredcos_cap_v2"),
        ("rescale_betas_zero_snr", True),
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(name: str, value: object) -> None:
    with pytest.raises(
        CellFailed, match=f"^{name} {value!r} of the checkpoint is not supported; .* (is|are)$"
    ):
        parameterization_of(STABLE_DIFFUSION | {name: value})
