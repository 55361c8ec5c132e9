"""Measures how well pictures follow prompts, and how well the autoencoder keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]  # ships no types

from .attributes import Cat
from .captions import full_caption
from .clip import ClipTraining, tokens
from .dataset import Pictures
from .judge import Judge, agreement
from .vae import psnr

Figures = dict[str, float]
RETRIEVAL_COUNT = 256


def measured_cats(pictures: Pictures, count: int) -> list[Cat]:
    """The first cats that are drawn sharp."""
    return [cat for cat in pictures.cats if cat.focus == "sharp"][:count]


@torch.no_grad()
def paint(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    guidance: float,
    steps: int,
    first_seed: int = 0,
) -> Tensor:
    """One picture in −1 … 1 for each prompt, seeded by its place: (prompts, 3, height, width)."""
    seeds = [torch.Generator().manual_seed(first_seed + k) for k in range(len(prompts))]
    pictures = pipeline(
        list(prompts),
        guidance_scale=guidance,
        num_inference_steps=steps,
        generator=seeds,
        output_type="pt",
    ).images
    drawn: Tensor = pictures * 2 - 1
    return drawn


def fidelity(
    pipeline: StableDiffusionPipeline,
    judge: Judge,
    cats: Sequence[Cat],
    guidance: Iterable[float],
    step_counts: Iterable[int],
) -> list[dict[str, Any]]:
    """Share of attributes drawn as prompted, for each guidance scale and number of steps."""
    prompts = [full_caption(cat) for cat in cats]
    labels = torch.tensor([cat.labels() for cat in cats])
    cells = [(steps, scale) for steps in step_counts for scale in guidance]
    rows = []
    for steps, scale in tqdm(cells, desc="fidelity", mininterval=5):
        read = judge.read(paint(pipeline, prompts, scale, steps))
        rows.append({"steps": steps, "cfg": scale, **agreement(read, labels)})
    return rows


@torch.no_grad()
def reconstruction(vae: AutoencoderKL, judge: Judge, pictures: Pictures, count: int = 256) -> Figures:
    """PSNR in dB of held-out pictures, and what the judge still reads from them."""
    index = np.arange(min(count, len(pictures)))
    target = pictures.images(index)
    drawn = vae.decode(vae.encode(target).latent_dist.mean).sample
    labels = pictures.labels[index]
    read = {
        f"read_{name}": share for name, share in agreement(judge.read(drawn.clamp(-1, 1)), labels).items()
    }
    original = {f"drawn_{name}": share for name, share in agreement(judge.read(target), labels).items()}
    return {"psnr": psnr(drawn, target), **read, **original}


@torch.no_grad()
def clip_figures(both: ClipTraining, tokenizer: Any, pictures: Pictures) -> Figures:
    """Retrieval among held-out pairs, and what can be read from either embedding."""
    count = min(RETRIEVAL_COUNT, len(pictures))
    ids = tokens(tokenizer, [full_caption(cat) for cat in pictures.cats[:count]])
    out = both.clip(input_ids=ids, pixel_values=pictures.images(np.arange(count)))
    logits, target, labels = out.logits_per_image, torch.arange(count), pictures.labels[:count]
    hits = {
        "pictures_find_texts": float((logits.argmax(1) == target).float().mean()),
        "texts_find_pictures": float((logits.argmax(0) == target).float().mean()),
    }
    seen = agreement(both.read(out.image_embeds), labels)
    return {**hits, **{f"seen_{name}": share for name, share in seen.items()}}
