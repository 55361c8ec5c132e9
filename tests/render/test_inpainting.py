"""Inpainting checkpoints without a mask: against diffusers' pipelines with a mask of ones."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from farm.cell import Cell, Settings
from farm.layout import Layout
from farm.plan import Plan
from farm.render.requests import Predict, Request
from farm.weights.checkpoint import Networks
from farm.weights.loading import load_checkpoint
from tests.render.rendering import LEVELS, Counting, apart, cat_file, render
from tests.render.tiny_sdxl import inpainting_parts, saved, sdxl_parts

pytestmark = pytest.mark.slow  # there are many of them, on networks of several kinds

CPU = torch.device("cpu")
KEY, FILE = cat_file(64, 64)
BASE = Settings(
    "m", "a ginger cat", "blurry", "diffusers:DDIMScheduler", 5, 5.0, 3, 64, 64, schedule="automatic", eta=0.0
)
PIPELINES = {"sd": StableDiffusionInpaintPipeline, "xl": StableDiffusionXLInpaintPipeline}


@pytest.fixture(scope="module", params=PIPELINES)
def folder(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: Any) -> Path:
    words = tiny_model / "tokenizer"
    parts = inpainting_parts(words) if request.param == "sd" else sdxl_parts(words, channels=9)
    return saved(tmp_path_factory.mktemp("inpainting") / request.param, parts)


@pytest.fixture(scope="module")
def inpainting(folder: Path) -> Networks:
    return load_checkpoint(folder, CPU, torch.float32)


@pytest.fixture
def pipeline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Which takes the mean of what the VAE says, as we do, and so draws nothing but its noise."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    made: Any = PIPELINES[folder.name].from_pretrained(folder, dtype=torch.float32)
    made.scheduler = diffusers.DDIMScheduler.from_config(made.scheduler.config)
    made.set_progress_bar_config(disable=True)
    return made


def theirs(pipeline: Any, wanted: Settings, strength: float, picture: bytes) -> np.ndarray:
    size = (wanted.width, wanted.height)
    generator = torch.Generator().manual_seed(wanted.seed)
    [image] = pipeline(
        prompt=wanted.prompt, negative_prompt=wanted.negative_prompt, num_inference_steps=wanted.steps,
        guidance_scale=wanted.cfg_scale, generator=generator, width=wanted.width, height=wanted.height,
        image=Image.open(io.BytesIO(picture)).resize(size), mask_image=Image.new("L", size, 255),
        strength=strength,
    ).images  # fmt: skip
    return np.asarray(image)


@pytest.mark.parity
@pytest.mark.parametrize("change", [{}, {"width": 96, "prompt": "a hat"}, {"cfg_scale": 1.0}], ids=str)
def test_equals_the_pipeline(change: dict[str, Any], inpainting: Networks, pipeline: Any) -> None:
    """All of the picture that it is shown is behind the mask."""
    wanted = replace(BASE, **change)
    ours = render([wanted], Counting(inpainting))[0]
    assert apart(ours, theirs(pipeline, wanted, 1.0, FILE)) <= LEVELS


@pytest.mark.parity
@pytest.mark.parametrize("strength", [0.4, 0.8])
def test_from_a_picture_it_equals_the_pipeline(strength: float, inpainting: Networks, pipeline: Any) -> None:
    """As A1111 does it without a mask: latents of the picture, and gray beside them."""
    wanted = replace(BASE, init_image=KEY, denoising_strength=strength)
    [ours] = render([wanted], Counting(inpainting), pictures={KEY: FILE})
    assert apart(ours, theirs(pipeline, wanted, strength, FILE)) <= LEVELS


class Shown(Counting):
    """Remembers what the UNet was shown."""

    def run(self, requests: list[Request]) -> list[Any]:
        self.inputs = getattr(self, "inputs", [])
        self.inputs += [one.input for one in requests if isinstance(one, Predict)]
        return super().run(requests)


@torch.inference_mode()
def test_the_mask_is_ones_and_what_it_leaves_is_exactly_gray(inpainting: Networks) -> None:
    render([replace(BASE, sampler="Euler", schedule="karras", steps=2)], runner := Shown(inpainting))
    gray = inpainting.vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mode()[0]
    assert len(runner.inputs) == 4 and gray.abs().max() > 0.5
    for shown in runner.inputs:
        assert shown.shape == (9, 8, 8) and torch.equal(shown[4], torch.ones(8, 8))
        latents = gray * inpainting.vae.config.scaling_factor
        torch.testing.assert_close(shown[5:], latents, rtol=0, atol=5e-5)


def test_gray_is_encoded_once_for_each_size(inpainting: Networks) -> None:
    """Beside the pictures to start from, which are all that a plan can know of."""
    cells = [
        replace(BASE, width=width, seed=seed, init_image=picture)
        for width in (64, 72) for seed in (1, 2) for picture in ("", KEY)
    ]  # fmt: skip
    together = render(cells, runner := Counting(inpainting), pictures={KEY: FILE})
    plan = Plan("p", (), Layout(), tuple(Cell(n, (), one) for n, one in enumerate(cells)))
    assert plan.image_encodings() == 2 and runner.rows("EncodeImage") == 2 + 2
    assert runner.rows("Predict") == plan.rows() and runner.rows("EncodeText") == plan.text_encodings()
    alone = [render([one], Counting(inpainting), pictures={KEY: FILE})[0] for one in cells]
    assert max(map(apart, together, alone)) <= LEVELS


def test_approximations_are_shown_as_much(inpainting: Networks) -> None:
    base = replace(BASE, sampler="Euler", schedule="karras", steps=4)
    cells = [
        base,
        replace(base, deepcache_interval=2),
        replace(base, token_merging_ratio=0.5),
        replace(base, deepcache_interval=3, token_merging_ratio=0.5),
    ]
    together = render(cells, Counting(inpainting))
    alone = [render([one], Counting(inpainting))[0] for one in cells]
    assert max(map(apart, together, alone)) <= LEVELS
    assert len({one.tobytes() for one in alone}) == len(cells)
