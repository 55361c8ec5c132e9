"""What a checkpoint in a single file consists of, told from its header. Without torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import pstdev
from typing import Any

from farm.weights.contents import BadFile, Contents, read_contents
from farm.weights.few_numbers import numbers_of
from farm.weights.original_config import OriginalConfig, read_original_config
from farm.weights.original_layout import (
    UNET,
    VAE,
    Config,
    NotThisLayout,
    Tensors,
    added_embedding,
    clip_config,
    open_clip_config,
    unet_config,
    vae_config,
)

INPAINTING_CHANNELS = 9
LATENT_CHANNELS = 4
EPSILON, V_PREDICTION = "epsilon", "v_prediction"

SCHEDULER: Config = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""As diffusers' folders of Stable Diffusion 1.5 say it; Stability's code calls these betas linear."""


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A text encoder of a file.

    Attributes:
        config: for `CLIPTextConfig`.
        prefix: of its tensors' names.
        is_open: whether they are named as OpenCLIP does, and not transformers.
        layers: of the network that the file has; more than the configuration's where the last is not used.
    """

    config: Config
    prefix: str
    is_open: bool
    layers: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """A checkpoint in a single file.

    Attributes:
        family: `sd1`, `sd2` or `sdxl`.
        unet: its configuration, for `UNet2DConditionModel`.
        vae: its configuration, for `AutoencoderKL`; None if the file has none.
        scaling_factor: of latents.
        text_encoders: one; two of SDXL.
        scheduler: as in a `scheduler_config.json`; its `prediction_type` is None if nobody knows it.
    """

    family: str
    unet: Mapping[str, Any]
    vae: Mapping[str, Any] | None
    scaling_factor: float
    text_encoders: tuple[TextEncoder, ...]
    scheduler: Mapping[str, Any]

    @property
    def variant(self) -> str:
        """The family with what sets the file apart in it: `sd2-v`, `sd1-inpainting`."""
        inpaints = "-inpainting" if self.unet["in_channels"] == INPAINTING_CHANNELS else ""
        return f"{self.family}{self._prediction}{inpaints}"

    @property
    def _prediction(self) -> str:
        prediction = self.scheduler.get("prediction_type")
        if prediction == V_PREDICTION:
            return "-v"
        return "-eps" if self.family == "sd2" and prediction else ""


def architecture_of(path: Path) -> Architecture:
    """What a file consists of.

    Raises:
        BadFile: it cannot be read, or is no checkpoint that is supported; one line that begins with its path.
    """
    contents = read_contents(path)
    try:
        return architecture_in(contents, path)
    except NotThisLayout as error:
        raise BadFile(f"{path}: {error}") from error


def architecture_in(contents: Contents, path: Path) -> Architecture:
    """As `architecture_of`, of a file whose header was read.

    Raises:
        NotThisLayout: it is no checkpoint that is supported.
        BadFile: the YAML beside it is not right.
    """
    tensors = contents.tensors
    for name, why in UNSUPPORTED.items():
        if name in tensors:
            raise NotThisLayout(f"it is a checkpoint of {why}, which is not supported")
    family = next((row for row in FAMILIES if row.mark in tensors), None)
    if family is None:
        raise NotThisLayout(_not_one(tensors))
    config = read_original_config(path)
    encoders = family.text_encoders(tensors)
    unet = unet_config(tensors, config.heads, config.head_channels)
    if unet["in_channels"] not in (LATENT_CHANNELS, INPAINTING_CHANNELS):
        raise NotThisLayout(
            f"its UNet takes {unet['in_channels']} channels; 4 and 9 (inpainting) are supported"
        )
    if family.name == "sdxl":
        unet |= added_embedding(tensors, encoders[-1].config["projection_dim"])
    scheduler = _scheduler(family.name, contents, config, path)
    if family.name == "sd2" and scheduler.get("prediction_type") == V_PREDICTION:
        unet["upcast_attention"] = True  # at half precision it overflows
    return Architecture(
        family.name,
        unet,
        vae_config(tensors) if any(name.startswith(VAE) for name in tensors) else None,
        config.scale_factor or family.scaling_factor,
        encoders,
        scheduler,
    )


def _of_sd1(tensors: Tensors) -> tuple[TextEncoder, ...]:
    return (_clip(tensors, "cond_stage_model.transformer.text_model."),)


def _of_early_sd1(tensors: Tensors) -> tuple[TextEncoder, ...]:
    return (_clip(tensors, "cond_stage_model.transformer."),)


def _of_sd2(tensors: Tensors) -> tuple[TextEncoder, ...]:
    """Its last layer is not used, so that it need not be there."""
    whole = _open_clip(tensors, "cond_stage_model.model.")
    config = whole.config | {"num_hidden_layers": whole.layers - 1}
    return (TextEncoder(config, whole.prefix, True, whole.layers),)


def _of_sdxl(tensors: Tensors) -> tuple[TextEncoder, ...]:
    first = _clip(tensors, "conditioner.embedders.0.transformer.text_model.")
    return first, _open_clip(tensors, "conditioner.embedders.1.model.")


@dataclass(frozen=True, slots=True)
class Family:
    """Checkpoints that are put together alike.

    Attributes:
        name: of the family.
        mark: a tensor that they have, and others have not.
        scaling_factor: of latents.
        text_encoders: finds them among the tensors.
    """

    name: str
    mark: str
    scaling_factor: float
    text_encoders: Callable[[Tensors], tuple[TextEncoder, ...]]


_LAST_NORM = "final_layer_norm.weight"

FAMILIES = (
    Family("sdxl", "conditioner.embedders.1.model.ln_final.weight", 0.13025, _of_sdxl),
    Family("sd2", "cond_stage_model.model.ln_final.weight", 0.18215, _of_sd2),
    Family("sd1", f"cond_stage_model.transformer.text_model.{_LAST_NORM}", 0.18215, _of_sd1),
    Family("sd1", f"cond_stage_model.transformer.{_LAST_NORM}", 0.18215, _of_early_sd1),
)
"""The first whose mark is among a file's tensors is its family."""

UNSUPPORTED = {
    "conditioner.embedders.0.model.ln_final.weight": "SDXL's refiner",
    "edm_mean": "Playground 2.5",
    "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": "Stable Diffusion 3",
    "model.diffusion_model.double_blocks.0.img_attn.qkv.weight": "Flux",
    "double_blocks.0.img_attn.qkv.weight": "Flux",
    "cond_stage_model.model.visual.proj": "Stable UnCLIP",
}
"""Tensors of others, and whose they are."""


def _not_one(tensors: Tensors) -> str:
    if any(name.startswith(UNET) for name in tensors):
        return "it has a UNet, but no text encoder"
    return "it is no checkpoint of Stable Diffusion 1.x, 2.x or XL"


def _clip(tensors: Tensors, prefix: str) -> TextEncoder:
    config = clip_config(tensors, prefix)
    return TextEncoder(config, prefix, False, config["num_hidden_layers"])


def _open_clip(tensors: Tensors, prefix: str) -> TextEncoder:
    config = open_clip_config(tensors, prefix)
    return TextEncoder(config, prefix, True, config["num_hidden_layers"])


def _scheduler(family: str, contents: Contents, config: OriginalConfig, path: Path) -> Config:
    said = {
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "num_train_timesteps": config.timesteps,
        "prediction_type": config.prediction_type or _prediction(family, contents, path),
    }
    found = SCHEDULER | {"prediction_type": None}
    found |= {name: value for name, value in said.items() if value is not None}
    if family == "sdxl":
        found["_class_name"] = "EulerDiscreteScheduler"
    if "ztsnr" in contents.tensors:
        found["rescale_betas_zero_snr"] = True
    return found


BIAS_OF_SD2 = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
SPREAD_OF_V = 0.09
"""The standard deviation of this tensor in Stability's releases is larger if they predict v, says ComfyUI."""


def _prediction(family: str, contents: Contents, path: Path) -> str | None:
    """What the weights say; markers that trainers of SDXL put among them, or a tensor's spread."""
    if "v_pred" in contents.tensors:
        return V_PREDICTION
    if family != "sd2":
        return EPSILON
    bias = numbers_of(path, BIAS_OF_SD2)
    if len(bias) < 2:
        return None
    return V_PREDICTION if pstdev(bias) > SPREAD_OF_V else EPSILON
