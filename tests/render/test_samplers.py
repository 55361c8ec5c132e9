import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    StableDiffusionPipeline,
)

from farm.cell import Settings
from farm.render import samplers
from farm.render.schedules import sigmas_for
from farm.sampling import SAMPLERS, Sampler, find_sampler
from farm.weights.checkpoint import Networks
from tests.render.oracles import Recorded, drive, k_diffusion, stable_diffusion, two_points
from tests.render.rendering import LEVELS, Counting, apart, prompt_states, render

SHAPE = (1, 4, 3, 5)
every_sampler = pytest.mark.parametrize("row", SAMPLERS, ids=lambda row: row.name)


def sigmas_of(row: Sampler, steps: int) -> tuple[float, ...]:
    return sigmas_for(row.schedule, stable_diffusion(), steps, row.discards_penultimate_sigma)


def noise_for(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(steps + 1)]


def ours(row: Sampler, steps: int) -> tuple[torch.Tensor, int]:
    first, *draws = noise_for(steps)
    sigmas = sigmas_of(row, steps)
    function = samplers.SAMPLERS[row.algorithm]
    x, asked = drive(function(first * sigmas[0], sigmas, Recorded(draws)), two_points)
    return x, len(asked)


def theirs(row: Sampler, steps: int) -> torch.Tensor:
    sampling = k_diffusion("sampling")
    first, *draws = noise_for(steps)
    sigmas = torch.tensor(sigmas_of(row, steps), dtype=torch.float64)
    options = {"noise_sampler": Recorded(draws)} if row.stochastic else {}
    function = getattr(sampling, f"sample_{row.algorithm}")

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return two_points(x, sigma.view(-1, 1, 1, 1))

    return function(model, first * sigmas[0], sigmas, disable=True, **options)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20])
@every_sampler
def test_equals_k_diffusion_in_float64(row: Sampler, steps: int) -> None:
    x, _ = ours(row, steps)
    torch.testing.assert_close(x, theirs(row, steps), rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", range(1, 11))
@every_sampler
def test_asks_as_often_as_the_plan_says(row: Sampler, steps: int) -> None:
    assert ours(row, steps)[1] == row.evaluations(steps)


@every_sampler
def test_draws_noise_only_if_it_says_so(row: Sampler) -> None:
    sigmas = sigmas_of(row, 5)
    first, *draws = noise_for(5)
    noise = Recorded(draws)
    drive(samplers.SAMPLERS[row.algorithm](first * sigmas[0], sigmas, noise), two_points)
    left = len(list(noise._draws))
    assert left == (1 if row.stochastic else 5)  # none is drawn for the step that ends at 0


@every_sampler
def test_first_question_is_the_very_tensor_it_was_given(row: Sampler) -> None:
    x = torch.randn(SHAPE)
    question = samplers.SAMPLERS[row.algorithm](x, sigmas_of(row, 4), Recorded([])).send(None)
    assert question.x is x and question.step == 0  # what sharing the first rows relies on


def test_dpm_2_leaves_out_the_sigma_before_the_last_and_keeps_the_steps() -> None:
    whole = sigmas_for("karras", stable_diffusion(), 11, False)
    assert sigmas_for("karras", stable_diffusion(), 10, True) == (*whole[:10], 0.0)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_multistep_weights_integrate_polynomials_exactly(order: int) -> None:
    sigmas = (14.6, 9.1, 4.2, 1.3, 0.4)
    weights = samplers.multistep_weights(sigmas, 3, order)
    points = [sigmas[3 - back] for back in range(order)]
    for power in range(order):
        integral = (sigmas[4] ** (power + 1) - sigmas[3] ** (power + 1)) / (power + 1)
        assert sum(w * p**power for w, p in zip(weights, points)) == pytest.approx(integral, abs=1e-9)


def settings(sampler: str, steps: int = 6, cfg_scale: float = 4.0) -> Settings:
    return Settings(
        "tiny", "portrait of beautiful cat", "blurry", sampler, steps, cfg_scale, 3805052747, 64, 64
    )


@pytest.mark.parity
@pytest.mark.parametrize("sampler", ["Euler a", "LMS Karras", "DPM2", "DPM++ 2M Karras"])
def test_pictures_equal_k_diffusion_on_the_model(sampler: str, networks: Networks) -> None:
    wanted = settings(sampler)
    theirs = k_diffusion_picture(wanted, networks)
    assert apart(render([wanted], Counting(networks))[0], theirs) <= LEVELS


@torch.inference_mode()
def k_diffusion_picture(wanted: Settings, networks: Networks) -> np.ndarray:
    row = find_sampler(wanted.sampler)
    assert row is not None
    states = torch.cat([prompt_states(networks, text) for text in (wanted.negative_prompt, wanted.prompt)])
    alphas = DDPMScheduler.from_config(networks.scheduler_config).alphas_cumprod
    eps = k_diffusion("external").DiscreteEpsDDPMDenoiser(
        lambda x, t: networks.unet(x, t, encoder_hidden_states=states).sample, alphas, quantize=False
    )

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        without, with_prompt = eps(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        return without + wanted.cfg_scale * (with_prompt - without)

    sigmas = k_diffusion_sigmas(row, wanted.steps, eps)
    generator = torch.Generator().manual_seed(wanted.seed)

    def noise(*_: object) -> torch.Tensor:
        return torch.randn((1, 4, 8, 8), generator=generator)

    options = {"noise_sampler": noise} if row.stochastic else {}
    function = getattr(k_diffusion("sampling"), f"sample_{row.algorithm}")
    latents = function(model, noise() * sigmas[0], sigmas, disable=True, **options)
    picture = networks.vae.decode(latents / networks.vae.config.scaling_factor).sample[0]
    return ((picture / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()


def k_diffusion_sigmas(row: Sampler, steps: int, model: torch.nn.Module) -> torch.Tensor:
    count = steps + row.discards_penultimate_sigma
    if row.schedule == "karras":
        sigmas = k_diffusion("sampling").get_sigmas_karras(count, model.sigma_min, model.sigma_max)
    else:
        sigmas = model.get_sigmas(count)
    return torch.cat([sigmas[:-2], sigmas[-1:]]) if row.discards_penultimate_sigma else sigmas


@pytest.mark.parity
@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        ("Euler", EulerDiscreteScheduler),
        ("Euler a", EulerAncestralDiscreteScheduler),
        ("Heun", HeunDiscreteScheduler),
        ("LMS", LMSDiscreteScheduler),
    ],
)
def test_pictures_equal_diffusers_pipeline(
    sampler: str, scheduler: type, networks: Networks, pipeline: StableDiffusionPipeline
) -> None:
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
    wanted = settings(sampler)
    theirs = pipeline(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.cfg_scale,
        generator=torch.Generator().manual_seed(wanted.seed),
        width=64,
        height=64,
    ).images[0]
    assert apart(render([wanted], Counting(networks))[0], np.asarray(theirs)) <= LEVELS
