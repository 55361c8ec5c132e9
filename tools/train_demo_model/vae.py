"""The autoencoder: pictures to 4 × 8 × 8 latents and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from .dataset import POSE, Pictures, label_counts
from .training import Draw, Plan, Training

LATENT_CHANNELS = 4
LOG_VARIANCE_START = -6.0
KL_WEIGHT = 1e-3
EDGE_WEIGHT = 0.5
SALIENCY_WEIGHT = 3.0
READER_WEIGHT = 0.8
POSE_SHARE = 0.2
THUMBNAIL_WEIGHT = 1.0
COLOUR_WEIGHT = 1.5
COLOUR_CELL = 4
READER_WIDTH = 256
JOINT_NOISE = 0.05
DECODER_NOISE = 0.08


@dataclass(frozen=True)
class VaeSize:
    """Channels from the picture's resolution down to the latents'."""

    channels: tuple[int, ...] = (16, 32, 64, 96)
    groups: int = 8
    picture: int = 64


def build_vae(size: VaeSize, seed: int) -> AutoencoderKL:
    """A fresh autoencoder that begins with almost no latent noise."""
    torch.manual_seed(seed)
    blocks = len(size.channels)
    vae: AutoencoderKL = AutoencoderKL(
        block_out_channels=size.channels,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=size.groups,
        sample_size=size.picture,
    )
    module: Any = vae  # diffusers' annotations hide what torch gives it
    nn.init.constant_(module.quant_conv.bias[LATENT_CHANNELS:], LOG_VARIANCE_START)
    module.to(memory_format=torch.channels_last)
    return vae


class Reader(nn.Module):
    """Reads the named attributes, the pose and a thumbnail from latents; not part of the model.

    Its loss makes the encoder keep what matters (hues, eye colour, mood, accessory) from the
    first minutes on; pixel errors alone leave it for long with outlines and a single axis of hue.
    """

    def __init__(self, cells: int) -> None:
        super().__init__()
        inputs = LATENT_CHANNELS * cells
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(inputs, READER_WIDTH), nn.GELU())
        self.heads = nn.ModuleList(nn.Linear(READER_WIDTH, count) for count in label_counts())
        self.pose = nn.Linear(READER_WIDTH, len(POSE))
        self.thumbnail = nn.Conv2d(LATENT_CHANNELS, 3, 1)

    def loss(self, latents: Tensor, labels: Tensor, pose: Tensor) -> Tensor:
        """Error of the names and numbers read from latents (batch, 4, height/8, width/8)."""
        hidden = self.hidden(latents)
        named = [F.cross_entropy(head(hidden), labels[:, k]) for k, head in enumerate(self.heads)]
        return torch.stack(named).mean() + POSE_SHARE * F.mse_loss(self.pose(hidden), pose)

    def thumbnail_loss(self, latents: Tensor, target: Tensor) -> Tensor:
        """Error of the picture's means over 8 × 8 pixels, read linearly from each latent."""
        read: Tensor = self.thumbnail(latents)
        return (read - F.avg_pool2d(target, 8)).abs().mean()


class VaeTraining(nn.Module):
    """The autoencoder and its reader, trained together."""

    def __init__(self, vae: AutoencoderKL, size: VaeSize) -> None:
        super().__init__()
        self.vae = vae
        self.reader = Reader((size.picture // 8) ** 2)


def picture_loss(drawn: Tensor, target: Tensor, saliency: Tensor) -> Tensor:
    """L1 + MSE + edges + coarse colour, heavier where the picture means something.

    Without the coarse term the outlines come first and hues last.

    Args:
        drawn: (batch, 3, height, width).
        target: The same shape.
        saliency: 0 … 1, (batch, 1, height, width).
    """
    error = drawn - target
    weight = 1 + SALIENCY_WEIGHT * saliency
    across = error.diff(dim=-1).abs() * weight[..., 1:]
    down = error.diff(dim=-2).abs() * weight[..., 1:, :]
    edges = across.mean() + down.mean()
    colour = F.avg_pool2d(error * weight, COLOUR_CELL).abs().mean()
    fine: Tensor = ((error.abs() + error.square()) * weight).mean()
    total: Tensor = fine + EDGE_WEIGHT * edges + COLOUR_WEIGHT * colour
    return total


def psnr(drawn: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in −1 … 1."""
    return float(-10 * torch.log10((drawn.clamp(-1, 1) - target).square().mean() / 4))


def train_vae(folder: Path, pictures: Pictures, size: VaeSize, plan: Plan) -> AutoencoderKL:
    """Train encoder and decoder together."""
    both = VaeTraining(build_vae(size, plan.seed), size)
    training = Training("vae", folder, both, plan)

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        index = draw.index(len(pictures), plan.batch)
        target = pictures.images(index).contiguous(memory_format=torch.channels_last)
        posterior = both.vae.encode(target).latent_dist
        spread = posterior.mean.detach().std()
        noise = draw.normal(tuple(posterior.mean.shape))
        latents = posterior.mean + posterior.std * noise
        read = both.reader.loss(latents, pictures.labels[index], pictures.pose[index])
        noisy = latents + JOINT_NOISE * spread * draw.normal(tuple(latents.shape))
        drawn = both.vae.decode(noisy).sample
        likeness = picture_loss(drawn, target, pictures.weights(index))
        kl = posterior.kl().mean() / latents[0].numel()
        thumbnail = both.reader.thumbnail_loss(latents, target)
        total = likeness + KL_WEIGHT * kl + READER_WEIGHT * read + THUMBNAIL_WEIGHT * thumbnail
        figures = {"psnr": psnr(drawn.detach(), target), "read": float(read.detach())}
        return total, {**figures, "thumbnail": float(thumbnail.detach()), "std": float(spread)}

    training.run(loss)
    return both.vae


@torch.no_grad()
def encode_all(vae: AutoencoderKL, pictures: Pictures, batch: int = 64) -> Tensor:
    """Mean latents of every picture, (count, 4, height/8, width/8), unscaled."""
    parts = []
    for start in range(0, len(pictures), batch):
        index = np.arange(start, min(start + batch, len(pictures)))
        parts.append(vae.encode(pictures.images(index)).latent_dist.mean)
    return torch.cat(parts)


def train_decoder(
    folder: Path, pictures: Pictures, latents: Tensor, vae: AutoencoderKL, plan: Plan
) -> AutoencoderKL:
    """Tune the decoder further on fixed, slightly disturbed latents (the encoder stays as it is)."""
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    if vae.post_quant_conv is not None:
        vae.post_quant_conv.requires_grad_(True)
    training = Training("decoder", folder, vae, plan)
    spread = float(latents.std())

    def loss(draw: Draw) -> tuple[Tensor, dict[str, float]]:
        index = draw.index(len(pictures), plan.batch)
        target = pictures.images(index).contiguous(memory_format=torch.channels_last)
        clean = latents[torch.from_numpy(index)]
        amount = DECODER_NOISE * spread * torch.rand((plan.batch, 1, 1, 1), generator=draw.torch) * 2
        drawn = vae.decode(clean + amount * draw.normal(tuple(clean.shape))).sample
        value = picture_loss(drawn, target, pictures.weights(index))
        return value, {"psnr": psnr(drawn.detach(), target)}

    training.run(loss)
    return vae
