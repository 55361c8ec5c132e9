"""What VAE the tensors of a file make, told from their names and shapes. Without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farm.weights.contents import BadFile, read_contents
from farm.weights.diffusers_folder import config_in
from farm.weights.original_layout import VAE, Config, NotThisLayout, Part, Tensors, vae_config
from farm.weights.places import Kind
from farm.weights.recognition import kind_of

LATENT_CHANNELS = 4
LEVELS = 4
"""Of a VAE whose latents have an eighth of the picture's sides."""


@dataclass(frozen=True, slots=True)
class VaeLayout:
    """How a file has a VAE.

    Attributes:
        config: for `AutoencoderKL`, but for its scaling factor.
        prefix: of the tensors' names.
        is_original: whether they are named as in CompVis' code, and not as in diffusers.
    """

    config: Config
    prefix: str
    is_original: bool


def vae_layout_of(path: Path) -> VaeLayout:
    """How a file or a folder of diffusers has its VAE.

    Raises:
        BadFile: it has none that is supported; one line that begins with its path.
        FarmError: its configuration cannot be read.
    """
    if path.is_dir():
        layout = VaeLayout(config_in(path, "config.json"), "", is_original=False)
    else:
        layout = _in_file(path)
    channels, levels = layout.config.get("latent_channels"), len(layout.config["block_out_channels"])
    if (channels, levels) != (LATENT_CHANNELS, LEVELS):
        raise BadFile(
            f"{path}: its latents have {channels} channels and 1/{2 ** (levels - 1)} of a picture's sides; "
            f"those of Stable Diffusion have {LATENT_CHANNELS} and 1/{2 ** (LEVELS - 1)}"
        )
    return layout


def _in_file(path: Path) -> VaeLayout:
    contents = read_contents(path)
    kind = kind_of(contents)
    if kind not in (Kind.VAE, Kind.CHECKPOINT):
        raise BadFile(f"{path}: it is {kind.in_words if kind else 'something else'}, and no VAE")
    try:
        return next(layout for detect in LAYOUTS if (layout := detect(contents.tensors)) is not None)
    except StopIteration:
        raise BadFile(f"{path}: it has no VAE") from None
    except NotThisLayout as error:
        raise BadFile(f"{path}: {error}") from error


def _of_checkpoint(tensors: Tensors) -> VaeLayout | None:
    if f"{VAE}decoder.conv_in.weight" not in tensors:
        return None
    return VaeLayout(vae_config(tensors), VAE, is_original=True)


def _original(tensors: Tensors) -> VaeLayout | None:
    if "decoder.up.0.block.0.conv1.weight" not in tensors:
        return None
    return VaeLayout(vae_config(tensors, ""), "", is_original=True)


def _of_diffusers(tensors: Tensors) -> VaeLayout | None:
    if "decoder.up_blocks.0.resnets.0.conv1.weight" not in tensors:
        return None
    vae = Part(tensors, "")
    levels = vae.count("encoder.down_blocks.{}.resnets.0.conv1.weight")
    config = {
        "in_channels": vae.size("encoder.conv_in.weight", 1),
        "out_channels": vae.size("decoder.conv_out.weight"),
        "latent_channels": vae.size("decoder.conv_in.weight", 1),
        "block_out_channels": [
            vae.size(f"encoder.down_blocks.{level}.resnets.0.conv1.weight") for level in range(levels)
        ],
        "layers_per_block": vae.count("encoder.down_blocks.0.resnets.{}.conv1.weight"),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "norm_num_groups": 32,
    }
    return VaeLayout(config, "", is_original=False)


LAYOUTS: tuple[Callable[[Tensors], VaeLayout | None], ...] = (_of_checkpoint, _original, _of_diffusers)
"""The first that finds something says how a file has its VAE."""
