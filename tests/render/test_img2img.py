"""Pictures that start from a picture, against the references run on the model."""

import hashlib
import io
import math
from functools import partial
from itertools import count, pairwise, product
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

from farm.cell import Cell, Settings
from farm.costs import evaluations, evaluations_at, first_rows, rows
from farm.diffusers_schedulers import scheduler_facts
from farm.errors import CellFailed
from farm.layout import Layout
from farm.pictures import prepared
from farm.plan import Plan
from farm.render.capacity import Capacity
from farm.render.distilled import distilled
from farm.render.engine import Engine
from farm.render.parameterization import parameterization_of
from farm.render.recipes import text_to_image
from farm.render.requests import EncodeImage, Predict, Request, Weights
from farm.render.runner import Runner
from farm.render.schedules import sigmas_for
from farm.sampling import BUILT_IN, SAMPLERS, SCHEDULES, Sampler
from farm.weights.checkpoint import Networks
from tests.render.on_the_model import decoded, k_diffusion_model, k_diffusion_sigmas, with_guidance
from tests.render.oracles import Recorded, k_diffusion, stable_diffusion
from tests.render.rendering import LEVELS, Counting, apart, pixels_for, render
from tests.render.test_samplers import k_diffusion_sampled
from tests.render.test_scheduler import CLASSES, STABLE_DIFFUSION, drawn, network, ours
from tests.render.unit_variance import settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def picture(networks: Networks) -> bytes:
    """A cat that is not square, so that it is resized, as the file that somebody has of it."""
    [pixels] = render([settings("Euler", 12, prompt="a tuxedo cat", width=80)], Counting(networks))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures(picture: bytes) -> dict[str, bytes]:
    return {key_of(picture): picture}


def key_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def from_picture(picture: bytes, sampler: str, steps: int, strength: float = 0.6, **others: Any) -> Settings:
    return settings(sampler, steps, init_image=key_of(picture), denoising_strength=strength, **others)


@torch.inference_mode()
def their_latents(picture: bytes, networks: Networks) -> torch.Tensor:
    """`(1, 4, 8, 8)`, as diffusers prepares and encodes a picture, without drawing from the distribution."""
    image = Image.open(io.BytesIO(picture)).convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image).astype(np.float32) / 255).permute(2, 0, 1)[None]
    distribution = networks.vae.encode(2 * pixels - 1).latent_dist
    return distribution.mean * networks.vae.config.scaling_factor


@pytest.mark.parity
@torch.inference_mode()
def test_pictures_are_encoded_as_diffusers_does(
    picture: bytes, networks: Networks, pipeline: StableDiffusionPipeline
) -> None:
    runner = Runner(lambda *_: networks, CPU)
    pixels = torch.from_numpy(np.array(prepared(picture, 64, 64)))
    together = runner.run([EncodeImage(Weights("m"), one) for one in (pixels, 255 - pixels, pixels)])
    theirs = pipeline.image_processor.preprocess(Image.fromarray(pixels.numpy()))
    whole = pipeline.vae.encode(theirs).latent_dist.mode() * pipeline.vae.config.scaling_factor
    torch.testing.assert_close(together[0], whole[0], rtol=0, atol=1e-5)
    assert together[0].dtype == torch.float32 and together[0].shape == (4, 8, 8)
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
    torch.testing.assert_close(their_latents(picture, networks), whole, rtol=0, atol=1e-5)


# Samplers

every_other = partial(pytest.param, marks=pytest.mark.slow)
"""What another case shows about as well."""

OF_K_DIFFUSION = [
    *((row, "uniform") for row in SAMPLERS if row.name in ("Euler a", "Heun", "LMS", "DPM2 a", "DPM++ 2S a")),
    *((row, "karras") for row in SAMPLERS if row.name in ("Euler", "DPM++ 2M", "DPM++ SDE", "DPM++ 3M SDE")),
    *((row, "uniform") for row in SAMPLERS if row.name in ("DPM fast", "DPM adaptive")),
]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:Should have t")  # k-diffusion does not round to its tree's ends
@pytest.mark.parametrize("strength", [0.35, 0.75, 1.0])
@pytest.mark.parametrize(("row", "schedule"), OF_K_DIFFUSION, ids=lambda one: getattr(one, "name", one))
@pytest.mark.slow
def test_pictures_equal_k_diffusion_on_the_model(
    row: Sampler, schedule: str, strength: float, picture: bytes, pictures: Any, networks: Networks
) -> None:
    wanted = from_picture(picture, row.name, 8, strength, schedule=schedule)
    ours = render([wanted], Counting(networks), pictures=pictures)[0]
    theirs = k_diffusion_picture(row, wanted, their_latents(picture, networks), networks)
    assert apart(ours, theirs) <= LEVELS


@torch.inference_mode()
def k_diffusion_picture(
    row: Sampler, wanted: Settings, latents: torch.Tensor, networks: Networks
) -> np.ndarray:
    """A1111's `sample_img2img`, written out."""
    eps = k_diffusion_model(wanted, networks)

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return with_guidance(eps, wanted, x, sigma)

    whole = k_diffusion_sigmas(row, wanted, eps)
    if row.brownian:  # the last bits of a sigma move it along the path, whose noise differs by their root
        own = parameterization_of(networks.scheduler_config)
        whole = torch.tensor(sigmas_for(wanted, row, BUILT_IN.schedules[wanted.schedule], own))
    t_enc = int(min(wanted.denoising_strength, 0.999) * wanted.steps)
    sigmas = whole[wanted.steps - t_enc - 1 :]
    generator = torch.Generator().manual_seed(wanted.seed)
    drawn = (torch.randn((1, 4, 8, 8), generator=generator) for _ in count())
    x = latents + next(drawn) * sigmas[0]
    noise: Any = Recorded(drawn)
    if row.brownian:  # along the whole way, of which this is the end
        tree = k_diffusion("sampling").BrownianTreeNoiseSampler
        noise = tree(x, whole[whole > 0].min(), whole.max(), seed=wanted.seed)
    return decoded(k_diffusion_sampled(row, model, x, sigmas, {}, noise), networks)


@pytest.mark.parity
@pytest.mark.parametrize(("steps", "strength", "eta"), [(8, 0.5, 0.0), (10, 0.75, 0.7), (6, 1.0, 0.0)])
@torch.inference_mode()
def test_ddim_equals_its_formula_on_the_model(
    steps: int, strength: float, eta: float, picture: bytes, pictures: Any, networks: Networks
) -> None:
    """Song et al. 2020, equation 12, with alphas, from √a·picture + √(1 − a)·noise."""
    wanted = from_picture(picture, "DDIM", steps, strength, eta=eta)
    eps = k_diffusion_model(wanted, networks)
    stride = 1000 // steps
    times = range(1, 1000, stride)[: int(min(strength, 0.999) * steps) + 1]
    alphas = [float(alpha) for alpha in alphas_cumprod(networks)[[*reversed(times), 0]]]
    generator = torch.Generator().manual_seed(wanted.seed)
    noise = torch.randn((1, 4, 8, 8), generator=generator)
    x = alphas[0] ** 0.5 * their_latents(picture, networks) + (1 - alphas[0]) ** 0.5 * noise
    for a_t, a_prev in pairwise(alphas):
        sigma = math.sqrt((1 - a_t) / a_t)
        clean = with_guidance(eps, wanted, x / a_t**0.5, torch.tensor([sigma]))
        e_t = (x - a_t**0.5 * clean) / (1 - a_t) ** 0.5
        sigma_t = eta * ((1 - a_prev) / (1 - a_t) * (1 - a_t / a_prev)) ** 0.5
        x = a_prev**0.5 * clean + (1 - a_prev - sigma_t**2) ** 0.5 * e_t
        if sigma_t:
            x = x + sigma_t * torch.randn((1, 4, 8, 8), generator=generator)
    ours = render([wanted], Counting(networks), pictures=pictures)[0]
    assert apart(ours, decoded(x, networks)) <= LEVELS


def alphas_cumprod(networks: Networks) -> torch.Tensor:
    return diffusers.DDPMScheduler.from_config(networks.scheduler_config).alphas_cumprod


class First(Counting):
    """Remembers the first row that went to the UNet, and how many evaluations there were."""

    def run(self, requests: list[Request]) -> list[Any]:
        if isinstance(requests[0], Predict) and not self.rows("Predict"):
            self.first = requests[0]
        return super().run(requests)


@pytest.mark.parametrize("strength", [0.0, 0.4, every_other(1.0)])
@pytest.mark.parametrize(
    "row", [row for row in SAMPLERS if row.starts_from_pictures], ids=lambda row: row.name
)
def test_every_sampler_starts_from_the_picture_and_the_noise_of_its_sigma(
    row: Sampler, strength: float, picture: bytes, pictures: Any, networks: Networks
) -> None:
    wanted = from_picture(picture, row.name, 10, strength, cfg_scale=1.0)
    render([wanted], runner := First(networks), pictures=pictures)
    if strength == 0 and row.chooses_steps:  # it starts where it ends
        assert runner.rows("Predict") == 0
        return
    model = distilled(parameterization_of(networks.scheduler_config), row.distilled_at)
    sigmas = sigmas_for(wanted, row, BUILT_IN.schedules[wanted.schedule], model)
    sigma = sigmas[-2 - int(min(strength, 0.999) * 10)]
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(wanted.seed))
    x = their_latents(picture, networks) + noise * sigma
    torch.testing.assert_close(runner.first.input, (x / (sigma**2 + 1) ** 0.5)[0], rtol=0, atol=1e-5)
    assert runner.first.time == pytest.approx(model.time_at(sigma))
    if not row.chooses_steps:
        assert runner.rows("Predict") == evaluations(wanted)


# Schedulers of diffusers

CASES = [
    ("EulerDiscreteScheduler", 8, 0.5),
    ("EulerAncestralDiscreteScheduler", 8, 0.75),
    ("HeunDiscreteScheduler", 6, 0.5),
    ("DPMSolverMultistepScheduler", 8, 0.6),
    ("DDIMScheduler", 8, 0.5),
    ("PNDMScheduler", 8, 0.5),
    ("UniPCMultistepScheduler", 8, 1.0),
    ("KDPM2AncestralDiscreteScheduler", 5, 0.4),
    ("LCMScheduler", 8, 0.5),
]


@pytest.mark.parity
@pytest.mark.parametrize(("name", "steps", "strength"), CASES)
def test_schedulers_equal_diffusers_pipeline(
    name: str,
    steps: int,
    strength: float,
    picture: bytes,
    pictures: Any,
    networks: Networks,
    pipeline: StableDiffusionPipeline,
) -> None:
    wanted = from_picture(picture, f"diffusers:{name}", steps, strength)
    kind = getattr(diffusers, name)
    parts = {**pipeline.components, "scheduler": kind.from_config(pipeline.scheduler.config)}
    theirs = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    [image] = theirs(
        prompt=wanted.prompt, negative_prompt=wanted.negative_prompt, num_inference_steps=steps,
        strength=strength, guidance_scale=wanted.cfg_scale, image=their_latents(picture, networks),
        generator=torch.Generator().manual_seed(wanted.seed),
    ).images  # fmt: skip
    ours = render([wanted], runner := Counting(networks), pictures=pictures)[0]
    assert apart(ours, np.asarray(image)) <= LEVELS
    assert runner.rows("Predict") == rows(wanted)


@pytest.mark.parity
@pytest.mark.parametrize("name", [name for name in CLASSES if scheduler_facts(name).adds_noise])
@pytest.mark.parametrize(("steps", "strength"), [(2, 0.5), (7, 0.6)])
def test_is_the_loop_of_diffusers_to_the_bit(name: str, steps: int, strength: float) -> None:
    """`StableDiffusionImg2ImgPipeline`'s, in float64, over a made-up network."""
    init, options = torch.linspace(-1, 1, 60, dtype=torch.float64).reshape(4, 3, 5), {}
    if "noise_sampler_seed" in scheduler_facts(name).options:
        options["noise_sampler_seed"] = 7
    ours_x, asked = ours(name, steps, STABLE_DIFFUSION, init=init, strength=strength)
    theirs = their_loop(name, steps, strength, init, options)
    assert torch.equal(ours_x, theirs)
    row = BUILT_IN[f"diffusers:{name}"]
    assert len(asked) == evaluations_at(steps, row, BUILT_IN.schedules[row.schedule], None, strength)


def their_loop(
    name: str, steps: int, strength: float, init: torch.Tensor, options: dict[str, Any]
) -> torch.Tensor:
    original = diffusers.PNDMScheduler.from_config(STABLE_DIFFUSION)
    scheduler = getattr(diffusers, name).from_config(original.config, **options)
    scheduler.set_timesteps(steps)
    begin = (steps - int(steps * strength)) * scheduler.order
    times = scheduler.timesteps[begin:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    noise, generator = drawn()
    x = scheduler.add_noise(init[None], noise[None], times[:1])
    facts = scheduler_facts(name)
    given: dict[str, Any] = {"generator": generator} if "generator" in facts.step else {}
    given |= {"eta": 0.0} if "eta" in facts.step else {}
    for time in times:
        shown = scheduler.scale_model_input(x, time)
        x = scheduler.step(network(shown, float(time)), time, x, **given).prev_sample
    return x[0]


# What is shared, and what plans say of it

STARTS = {"steps": (5, 8, 9, 10, 20), "denoising_strength": (0.0, 0.3, 0.5, 0.7, 0.75, 1.0)}


def starts(sampler: str, schedule: str, **others: Any) -> list[Settings]:
    return [
        settings(sampler, steps, schedule=schedule, init_image="a", denoising_strength=strength, **others)
        for steps, strength in product(*STARTS.values())
    ]


@pytest.mark.parametrize(
    "others",
    [{}, {"sigma_max": 9.0, "sigma_min": 0.1}, {"discard_next_to_last_sigma": True}],
    ids=str,
)
def test_first_rows_are_equal_exactly_where_pictures_start_alike(others: dict[str, Any]) -> None:
    """Over schedules, steps and strengths: evenly spaced ways meet, as half-way at 5 and at 9 steps."""
    by_sigma: dict[Any, set[Any]] = {}
    by_name: dict[Any, set[float]] = {}
    for row, schedule in product((BUILT_IN["Euler"], BUILT_IN["DDIM"], BUILT_IN["DPM++ 2M"]), SCHEDULES):
        for wanted in starts(row.name, schedule.name, **others):
            sigmas = sigmas_for(wanted, row, BUILT_IN.schedules[wanted.schedule], stable_diffusion())
            start = sigmas[-1 - evaluations(wanted)]
            own = wanted.schedule if wanted.schedule in AT_WHOLE_TIMESTEPS and start < sigmas[0] else ""
            by_sigma.setdefault((start, own), set()).add(first_rows(wanted)[0])
            by_name.setdefault(first_rows(wanted)[0], set()).add(start)
    assert [name for name, found in by_name.items() if len(found) > 1] == []
    assert [start for start, found in by_sigma.items() if len(found) > 1] == []


AT_WHOLE_TIMESTEPS = ("simple", "ddim")
"""Schedules that now and then have a sigma of another schedule, which plans do not know."""


@pytest.mark.slow
def test_one_encoding_serves_all_cells_and_plans_count_alike(
    picture: bytes, pictures: Any, networks: Networks
) -> None:
    cells = [
        from_picture(picture, sampler, steps, strength, seed=seed, cfg_scale=scale)
        for sampler, steps, strength, scale, seed in product(
            ("Euler a", "Heun", "DDIM", "Restart", "LCM", "DPM fast", "diffusers:HeunDiscreteScheduler"),
            (4, 8), (0.5, 0.75), (1.0, 4.0), (1, 2),
        )
    ]  # fmt: skip
    wanted = list(dict.fromkeys(cells))
    plan = Plan("p", (), Layout(), tuple(Cell(n, (), one) for n, one in enumerate(wanted)))
    render(wanted, runner := Counting(networks), pictures=pictures)
    assert runner.calls.count(("EncodeImage", 1)) == runner.rows("EncodeImage") == plan.image_encodings() == 1
    assert runner.rows("Predict") == plan.rows() == plan.unshared_rows() - plan.shared_rows()
    assert plan.shared_rows() > len(wanted) / 2


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_stop": 0.5},
        {"deepcache_interval": 2},
        {"token_merging_ratio": 0.5},
        {"prompt": "[a cat:a hat:4]"},
        {"prompt": "a cat AND a hat", "negative_prompt": "[a bow|a scarf]"},
        {"s_churn": 3.0},
        {"schedule": "ddim"},
        {"sigma_max": 9.0},
    ],
    ids=str,
)
def test_plans_count_alike_whatever_else_is_asked(
    change: dict[str, Any], picture: bytes, pictures: Any, networks: Networks
) -> None:
    wanted = [
        from_picture(picture, sampler, steps, strength, **change)
        for sampler, steps, strength in product(("Euler", "Heun"), (5, 8), (0.3, 0.9))
    ]
    plan = Plan("p", (), Layout(), tuple(Cell(n, (), one) for n, one in enumerate(wanted)))
    render(wanted, runner := Counting(networks), pictures=pictures)
    assert runner.rows("Predict") == plan.rows() and runner.shallow == plan.shallow_rows()
    assert runner.rows("EncodeText") == plan.text_encodings()


def test_each_picture_is_encoded_for_each_size(picture: bytes, pictures: Any, networks: Networks) -> None:
    other = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(other, "PNG")
    both = pictures | {key_of(other.getvalue()): other.getvalue()}
    cells = [
        from_picture(one, "Euler", 2, seed=seed, width=width)
        for one, seed, width in product(both.values(), (1, 2), (64, 72))
    ]
    plan = Plan("p", (), Layout(), tuple(Cell(n, (), one) for n, one in enumerate(cells)))
    render(cells, runner := Counting(networks), pictures=both)
    assert runner.rows("EncodeImage") == plan.image_encodings() == 4
    assert runner.calls.count(("EncodeImage", 2)) == 2  # those of a size together


def test_pictures_of_other_starts_share_no_first_row(picture: bytes, pictures: Any) -> None:
    base = {"sampler": "Euler", "steps": 8, "picture": picture}
    names = {
        tuple(first_rows(from_picture(**{**base, **change})))
        for change in ({}, {"strength": 0.3}, {"picture": b"other"}, {"seed": 2}, {"schedule": "karras"})
    } | {tuple(first_rows(settings("Euler", 8)))}
    assert len(names) == 6


def test_a_picture_that_is_not_here_fails_its_cell_alone(
    picture: bytes, pictures: Any, networks: Networks
) -> None:
    engine = Engine(Counting(networks), Capacity(CPU))
    cells = [from_picture(picture, "Euler", 2), from_picture(b"elsewhere", "Euler", 2)]
    for number, wanted in enumerate(cells):
        engine.submit(number, text_to_image(wanted, BUILT_IN, pixels_for(cells[:1], pictures)))
    ended = {}
    while engine.in_flight:
        ended.update({one.name: one.error for one in engine.step()})
    assert ended[0] is None and isinstance(ended[1], CellFailed)
    assert "is not on this machine" in str(ended[1])


def test_without_a_picture_a_sweep_over_strengths_is_one_picture(picture: bytes) -> None:
    without = {settings("Euler", 8, denoising_strength=strength) for strength in (0.2, 0.9)}
    assert without == {settings("Euler", 8)}
    assert from_picture(picture, "Euler", 8, 0.2) != from_picture(picture, "Euler", 8, 0.9)
