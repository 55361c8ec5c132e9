"""Checkpoints become networks in memory."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from farm.errors import CellFailed, described
from farm.weights.device_errors import is_out_of_memory
from farm.weights.diffusers_folder import SCHEDULER_CONFIG, config_in, pipeline_of
from farm.weights.fit import check_fit, check_words
from farm.weights.tokenizer import load_tokenizer

PIPELINES = (
    "StableDiffusionPipeline", "StableDiffusionXLPipeline",
    "StableDiffusionInpaintPipeline", "StableDiffusionXLInpaintPipeline",
)  # fmt: skip

SECOND = "text_encoder_2"
"""The folder of SDXL's other text encoder."""


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """A checkpoint's networks on a device, in evaluation mode.

    Attributes:
        unet: predicts the noise.
        vae: pictures to latents and back, at an eighth of the size.
        text_encoder: CLIP's text model.
        tokenizer: of the text encoder.
        scheduler_config: as in `scheduler/scheduler_config.json`.
        text_encoder_2: of SDXL; None of others.
        tokenizer_2: of that, with the same words.
    """

    unet: Any  # UNet2DConditionModel; diffusers' classes are not typed
    vae: Any  # AutoencoderKL
    text_encoder: Any  # CLIPTextModel
    tokenizer: Any  # CLIPTokenizer
    scheduler_config: dict[str, Any]
    text_encoder_2: Any = None  # CLIPTextModelWithProjection
    tokenizer_2: Any = None  # CLIPTokenizer

    @property
    def text_encoders(self) -> tuple[Any, ...]:
        """All that there are."""
        both = self.text_encoder, self.text_encoder_2
        return both[:1] if self.text_encoder_2 is None else both

    @property
    def tokenizers(self) -> tuple[Any, ...]:
        """Of each text encoder."""
        both = self.tokenizer, self.tokenizer_2
        return both[:1] if self.text_encoder_2 is None else both


def load_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> Networks:
    """Loads a diffusers folder. Nothing is fetched from anywhere.

    Raises:
        CellFailed: if it is not a folder of Stable Diffusion 1.x, 2.x or XL, or cannot be read.
    """
    try:
        _check_pipeline(folder)
        with quiet():
            return _load(folder, device, dtype)
    except CellFailed:
        raise
    except Exception as error:  # whatever the libraries raise about files that are missing, torn or foreign
        if is_out_of_memory(error):
            raise
        raise CellFailed(f"checkpoint {folder} cannot be loaded: {described(error)}") from error


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> Networks:
    """Small files first, so that a mistake in them is found before gigabytes are read."""
    config = config_in(folder, SCHEDULER_CONFIG)
    tokenizer, tokenizer_2 = load_tokenizer(folder / "tokenizer"), None
    if has_two := (folder / SECOND).is_dir():
        tokenizer_2 = load_tokenizer(folder / "tokenizer_2")
        check_words(tokenizer, tokenizer_2)

    def network(part: str, kind: Any, **precision: torch.dtype) -> Any:
        module, found = kind.from_pretrained(
            folder, subfolder=part, local_files_only=True, use_safetensors=True, output_loading_info=True,
            **precision,
        )  # fmt: skip
        if missing := sorted(found["missing_keys"]):  # the libraries would go on with random numbers
            raise ValueError(f"{part} lacks {len(missing)} tensors, {missing[0]} among them")
        return module.to(device).eval().requires_grad_(False)

    networks = Networks(
        text_encoder=network("text_encoder", CLIPTextModel, dtype=dtype),
        text_encoder_2=network(SECOND, CLIPTextModelWithProjection, dtype=dtype) if has_two else None,
        vae=network("vae", AutoencoderKL, torch_dtype=dtype),
        unet=network("unet", UNet2DConditionModel, torch_dtype=dtype),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        scheduler_config=config,
    )
    check_fit(networks.unet, networks.vae, networks.text_encoder_2)
    return networks


def _check_pipeline(folder: Path) -> None:
    pipeline = pipeline_of(folder)
    if pipeline not in PIPELINES:
        allowed = ", ".join(PIPELINES)
        raise CellFailed(f"checkpoint {folder} is a {pipeline}, which is not supported; {allowed} are")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' notices and progress bars out of people's terminals; errors are raised anyway."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
