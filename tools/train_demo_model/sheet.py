"""Contact sheets, for looking at what a training has made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from .dataset import Pictures
from .evaluate import paint

ENLARGEMENT = 3
PROMPTS = (
    "portrait of beautiful cat",
    "a ginger cat with green eyes wearing a hat on a blue background",
    "a black cat with yellow eyes wearing red glasses on a pink background",
    "a white cat with blue eyes wearing a bow tie on a green background",
    "a happy gray cat wearing a scarf on an orange background",
    "a grumpy striped brown cat with orange eyes wearing a crown on a purple background",
)
USUAL_GUIDANCE = 5.0


def as_image(picture: Tensor) -> Image.Image:
    """A picture (3, height, width) in −1 … 1 as an enlarged Pillow image."""
    pixels = ((picture.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    return image.resize((image.width * ENLARGEMENT, image.height * ENLARGEMENT), Image.Resampling.NEAREST)


def save_sheet(rows: Sequence[Sequence[Tensor]], path: Path) -> None:
    """Rows of pictures, each (3, height, width), as one PNG."""
    images = [[as_image(picture) for picture in row] for row in rows]
    width, height = images[0][0].size
    sheet = Image.new("RGB", (width * max(map(len, images)), height * len(images)))
    for y, row in enumerate(images):
        for x, image in enumerate(row):
            sheet.paste(image, (x * width, y * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def prompt_sheet(
    pipeline: StableDiffusionPipeline, path: Path, guidance: Sequence[float], step_counts: Sequence[int]
) -> None:
    """One row a prompt; a column for each guidance scale at most steps, and each smaller number of steps."""
    cells = [(scale, step_counts[-1]) for scale in guidance]
    cells += [(USUAL_GUIDANCE, steps) for steps in step_counts[:-1]]
    columns = [paint(pipeline, PROMPTS, scale, steps, first_seed=3) for scale, steps in cells]
    save_sheet([[column[k] for column in columns] for k in range(len(PROMPTS))], path)


def seed_sheet(pipeline: StableDiffusionPipeline, path: Path, steps: int, seeds: int = 9) -> None:
    """One row a prompt, one column a seed."""
    rows = [
        list(paint(pipeline, [prompt] * seeds, USUAL_GUIDANCE, steps, first_seed=10)) for prompt in PROMPTS
    ]
    save_sheet(rows, path)


@torch.no_grad()
def reconstruction_sheet(vae: AutoencoderKL, pictures: Pictures, path: Path, count: int = 16) -> None:
    """Held-out pictures in rows, each row above what the autoencoder makes of it."""
    target = pictures.images(np.arange(min(count, len(pictures))))
    drawn = vae.decode(vae.encode(target).latent_dist.mean).sample
    half = max(len(target) // 2, 1)
    rows = [
        list(part)
        for k in range(0, len(target), half)
        for part in (target[k : k + half], drawn[k : k + half])
    ]
    save_sheet(rows, path)
