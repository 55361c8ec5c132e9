"""VAE decoding strip by strip, for pictures that the device has no room to decode in one piece.

Tiles that are decoded each by itself and blended, as diffusers and others do it, make another picture: the
decoder normalizes its channels over the whole picture, and each tile has a mean and a deviation of its own.
Here each layer runs over the whole picture, strip by strip, before the next one begins, and normalizes as
over the whole: the picture is the same up to rounding. Between two layers it waits on the host.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, UpDecoderBlock2D
from torch import nn
from torch.nn import functional

STRIP_BYTES = 16 * 2**20
"""Of a layer's input at once; with what is computed of it, some twelve times that is in use."""

HALO = 1
"""Rows that a layer sees beyond those it computes."""

Layer = Callable[..., torch.Tensor]


class Whole(NamedTuple):
    """What a layer made of the whole picture.

    Attributes:
        values: `(batch, channels, height, width)`, on the host.
        mean: of each channel `(batch, channels)`, float64, on the host.
        variance: of each channel, the same.
    """

    values: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor


class Strips:
    """Runs layers over strips.

    Args:
        device: that they run on.
        most: bytes of a strip.
    """

    def __init__(self, device: torch.device, most: int = STRIP_BYTES) -> None:
        self._device = device
        self._most = most

    def over(self, layer: Layer, *inputs: Whole, factor: int = 1) -> Whole:
        """A layer's answer for the whole picture.

        Args:
            layer: of strips `(batch, channels, rows, width)`, one of each input; it looks at one row beyond.
            inputs: of the same height and width.
            factor: by which the layer enlarges.
        """
        height = inputs[0].values.shape[-2]
        rows = self._rows(inputs[0].values)
        strips = [
            self._strip(layer, inputs, top, min(height, top + rows), factor) for top in range(0, height, rows)
        ]
        return _joined(strips)

    def _rows(self, values: torch.Tensor) -> int:
        row = values[:, :, :1].numel() * values.element_size()
        return max(1, self._most // row)

    def _strip(self, layer: Layer, inputs: tuple[Whole, ...], top: int, bottom: int, factor: int) -> Whole:
        first = max(0, top - HALO)
        seen = [whole.values[:, :, first : bottom + HALO].to(self._device) for whole in inputs]
        skipped = (top - first) * factor
        return whole_of(layer(*seen)[:, :, skipped : skipped + (bottom - top) * factor])


def decode_in_strips(vae: Any, latents: torch.Tensor, most: int = STRIP_BYTES) -> torch.Tensor:
    """What `vae.decode` gives, on the host: pictures `(batch, 3, height, width)` from −1 to 1.

    Args:
        vae: an `AutoencoderKL`, on the latents' device.
        latents: `(batch, 4, height/8, width/8)`, scaled for the VAE.
        most: bytes of a strip of a layer's input.

    Raises:
        TypeError: the VAE is of another make than Stable Diffusion's.
    """
    if not can_strip(vae):
        raise TypeError(f"{type(vae).__name__} cannot be run in strips")
    decoder, strips = vae.decoder, Strips(latents.device, most)
    entered = latents if vae.post_quant_conv is None else vae.post_quant_conv(latents)
    picture = whole_of(_middle(decoder.mid_block, decoder.conv_in(entered), most))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            picture = _resnet(resnet, picture, strips)
        for upsampler in block.upsamplers or ():
            picture = strips.over(upsampler, picture, factor=2)
    end = nn.Sequential(_Normalized(decoder.conv_norm_out, picture), decoder.conv_act, decoder.conv_out)
    return strips.over(end, picture).values


def can_strip(vae: Any) -> bool:
    """Whether the decoder is made of what is known here."""
    decoder = vae.decoder
    return (
        isinstance(vae, AutoencoderKL)
        and isinstance(decoder.mid_block, UNetMidBlock2D)
        and isinstance(decoder.conv_norm_out, nn.GroupNorm)
        and all(isinstance(block, UpDecoderBlock2D) for block in decoder.up_blocks)
    )


def whole_of(values: torch.Tensor) -> Whole:
    """Moves values to the host, with their moments."""
    variance, mean = torch.var_mean(values.float(), dim=(2, 3), correction=0)
    return Whole(values.cpu(), mean.cpu().double(), variance.cpu().double())


def _middle(block: Any, values: torch.Tensor, most: int) -> torch.Tensor:
    """diffusers' UNetMidBlock2D: an eighth of the picture's size, so in one piece but for the attention."""
    values = block.resnets[0](values, None)
    for attention, resnet in zip(block.attentions, block.resnets[1:]):
        if attention is not None:
            values = _attended(attention, values, most)
        values = resnet(values, None)
    return values


def _attended(attention: Any, values: torch.Tensor, most: int) -> torch.Tensor:
    """Self-attention, of few points at a time: where it is not fused it has a number for each pair."""
    points = attention.group_norm(values.flatten(2)).transpose(1, 2)
    query, key, value = (
        project(points).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    pairs = key[..., 0].numel() * key.element_size()  # of one point with all
    answers = [
        functional.scaled_dot_product_attention(few, key, value)
        for few in query.split(max(1, most // pairs), dim=2)
    ]
    joined = torch.cat(answers, dim=2).transpose(1, 2).flatten(2)
    added: torch.Tensor = attention.to_out[0](joined).transpose(1, 2).reshape(values.shape) + values
    scale: float = attention.rescale_output_factor
    return added / scale


def _resnet(resnet: Any, picture: Whole, strips: Strips) -> Whole:
    """diffusers' ResnetBlock2D, without time."""
    first = nn.Sequential(_Normalized(resnet.norm1, picture), resnet.nonlinearity, resnet.conv1)
    halfway = strips.over(first, picture)
    second = nn.Sequential(_Normalized(resnet.norm2, halfway), resnet.nonlinearity, resnet.conv2)

    def added(inner: torch.Tensor, outer: torch.Tensor) -> torch.Tensor:
        skipped = outer if resnet.conv_shortcut is None else resnet.conv_shortcut(outer)
        total: torch.Tensor = (skipped + second(inner)) / resnet.output_scale_factor
        return total

    return strips.over(added, halfway, picture)


class _Normalized(nn.Module):
    """A GroupNorm with the moments of the whole picture.

    Args:
        norm: with its weights.
        picture: whose moments.
    """

    def __init__(self, norm: nn.GroupNorm, picture: Whole) -> None:
        super().__init__()
        groups = (len(picture.mean), norm.num_groups, -1)
        means = picture.mean.reshape(groups)
        mean = means.mean(-1, keepdim=True)
        variance = (picture.variance.reshape(groups) + (means - mean) ** 2).mean(-1, keepdim=True)
        scale = (variance + norm.eps).rsqrt().expand_as(means).flatten(1) * norm.weight.double().cpu()
        shift = norm.bias.double().cpu() - mean.expand_as(means).flatten(1) * scale
        self._scale, self._shift = (one.float()[:, :, None, None] for one in (scale, shift))

    def forward(self, strip: torch.Tensor) -> torch.Tensor:
        """Computed in float32, as PyTorch's own."""
        scale, shift = self._scale.to(strip.device), self._shift.to(strip.device)
        return torch.addcmul(shift, strip.float(), scale).to(strip.dtype)


def _joined(strips: list[Whole]) -> Whole:
    """One below the other; their moments by Chan, Golub and LeVeque 1979."""
    values = torch.cat([strip.values for strip in strips], dim=2)
    shares = torch.tensor([strip.values.shape[2] / values.shape[2] for strip in strips], dtype=torch.float64)
    means = torch.stack([strip.mean for strip in strips], dim=-1)
    variances = torch.stack([strip.variance for strip in strips], dim=-1)
    mean = means @ shares
    return Whole(values, mean, (variances + (means - mean[..., None]) ** 2) @ shares)
