"""The denoiser: trained on latents and text embeddings computed beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]  # ships no types
from transformers import CLIPTextModel, CLIPTokenizer

from .captions import careless_caption
from .clip import embed_texts
from .dataset import Pictures
from .tokenizer import LENGTH
from .training import Draw, Plan, Training
from .vae import LATENT_CHANNELS

WRONG_WORDS = 0.25
CAPTION_DROPOUT = 0.1
SNR_LIMIT = 5.0
EMBED_BATCH = 256
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@dataclass(frozen=True)
class UnetSize:
    """Two levels: the latents' resolution, with cross attention, and half of it, without."""

    channels: tuple[int, int] = (64, 128)
    groups: int = 16
    heads: int = 4
    layers: int = 1
    latent: int = 8
    context: int = 128


def build_unet(size: UnetSize, seed: int) -> UNet2DConditionModel:
    """A fresh denoiser."""
    torch.manual_seed(seed)
    unet: UNet2DConditionModel = UNet2DConditionModel(
        sample_size=size.latent,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=size.channels,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=size.layers,
        norm_num_groups=size.groups,
        attention_head_dim=size.heads,
        cross_attention_dim=size.context,
    )
    return unet


@dataclass(frozen=True)
class Conditions:
    """Text embeddings of the training captions.

    Attributes:
        texts: float16, (pictures, captions a picture, 77, width).
        empty: float32, (77, width): the embedding of no text.
    """

    texts: NDArray[np.float16]
    empty: Tensor


def embed_captions(
    folder: Path, pictures: Pictures, tower: CLIPTextModel, tokenizer: CLIPTokenizer, variants: int, seed: int
) -> Conditions:
    """Write several careless captions' embeddings for each picture, unless they are there already."""
    path, done = folder / "texts.npy", folder / "texts.done"
    empty = embed_texts(tower, tokenizer, [""])[0].float()
    if not done.exists():
        rng = np.random.default_rng(seed)
        texts = [careless_caption(cat, WRONG_WORDS, rng) for cat in pictures.cats for _ in range(variants)]
        shape = (len(texts), LENGTH, empty.shape[-1])
        table = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        for start in tqdm(range(0, len(texts), EMBED_BATCH), desc="embed captions", mininterval=5):
            part = texts[start : start + EMBED_BATCH]
            table[start : start + len(part)] = embed_texts(tower, tokenizer, part).numpy()
        table.flush()
        done.touch()
    flat = np.load(path, mmap_mode="r")
    return Conditions(flat.reshape(len(pictures), variants, *flat.shape[1:]), empty)


def train_unet(
    folder: Path, latents: Tensor, conditions: Conditions, size: UnetSize, plan: Plan
) -> UNet2DConditionModel:
    """Train on scaled latents (count, 4, height/8, width/8) to predict the noise in them."""
    unet = build_unet(size, plan.seed)
    training = Training("unet", folder, unet, plan)
    denoising = Denoising(unet)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        index = draw.index(len(latents), plan.batch)
        context = context_of(conditions, index, draw)
        return denoising(latents[torch.from_numpy(index)], context, draw)

    training.run(loss)
    return unet


class Denoising:
    """How badly a denoiser finds noise, each step's share weighted by min-SNR (Hang et al. 2023)."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet
        self.schedule = DDPMScheduler(**NOISE_SCHEDULE)
        self.snr = self.schedule.alphas_cumprod / (1 - self.schedule.alphas_cumprod)

    def __call__(self, clean: Tensor, context: Tensor, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and figures to log.

        Args:
            clean: scaled latents (batch, 4, height/8, width/8).
            context: text embeddings (batch, 77, width).
            draw: of noise and times; context is drawn before.
        """
        noise = draw.normal(tuple(clean.shape))
        t = torch.randint(len(self.snr), (len(clean),), generator=draw.torch)
        noisy = self.schedule.add_noise(clean, noise, t)
        error = (self.unet(noisy, t, context).sample - noise).square().mean((1, 2, 3))
        weight = self.snr[t].clamp(max=SNR_LIMIT) / self.snr[t]
        return (error * weight).mean(), {"mse": float(error.detach().mean())}


def context_of(conditions: Conditions, index: NDArray[np.int64], draw: Draw) -> Tensor:
    """One caption's embedding for each picture of a batch, sometimes that of no text."""
    variant = draw.numpy.integers(0, conditions.texts.shape[1], len(index))
    context = torch.from_numpy(conditions.texts[index, variant]).float()
    context[torch.rand(len(index), generator=draw.torch) < CAPTION_DROPOUT] = conditions.empty
    return context
