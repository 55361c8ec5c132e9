"""Writes the trained parts as a diffusers folder and a transformers CLIP folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from .clip import IMAGE_MEAN, IMAGE_STD
from .unet import NOISE_SCHEDULE

OTHER_SCHEDULERS: dict[str, object] = {
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}
"""What Stable Diffusion 1.x folders say to DDIM and PNDM, whose own defaults are for models of pixels."""

TOKENIZER_FILES = ("vocab.json", "merges.txt")


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside its place and swap it in, so that a reader finds one whole version."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, stale = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    write(fresh)
    for path in fresh.rglob("*.safetensors"):
        path.chmod(0o644)
    if folder.exists():
        folder.rename(stale)
    fresh.rename(folder)
    shutil.rmtree(stale, ignore_errors=True)


def build_pipeline(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The parts as one pipeline, without safety checker."""
    scheduler = DPMSolverMultistepScheduler(**NOISE_SCHEDULE, steps_offset=1, timestep_spacing="leading")
    nothing: Any = None  # allowed, though not by the annotations
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=nothing,
        feature_extractor=nothing,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export_model(pipeline: StableDiffusionPipeline, tokenizer_folder: Path, folder: Path, card: str) -> None:
    """Write the pipeline in half precision; its modules are half precision afterwards."""

    def write(place: Path) -> None:
        for module in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
            module.half()
        pipeline.save_pretrained(place, safe_serialization=True)
        _complete_tokenizer(tokenizer_folder, place / "tokenizer")
        # Otherwise transformers loads float16 where diffusers loads float32, and the parts do not fit.
        _amend(place / "text_encoder" / "config.json", {"dtype": "float32"})
        _amend(place / "scheduler" / "scheduler_config.json", OTHER_SCHEDULERS)
        (place / "README.md").write_text(card)

    replace_folder(folder, write)


def export_clip(clip: CLIPModel, tokenizer_folder: Path, folder: Path, card: str) -> None:
    """Write CLIP in half precision, with its tokenizer and image-processor configuration."""

    def write(place: Path) -> None:
        clip.half().save_pretrained(place)
        shutil.copytree(tokenizer_folder, place, dirs_exist_ok=True)
        (place / "preprocessor_config.json").write_text(json.dumps(_image_processor(clip), indent=2) + "\n")
        (place / "README.md").write_text(card)

    replace_folder(folder, write)


def _amend(config: Path, settings: dict[str, object]) -> None:
    """Set entries of a JSON file."""
    content = json.loads(config.read_text(encoding="utf-8")) | settings
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _complete_tokenizer(source: Path, place: Path) -> None:
    """Add the slow tokenizer's files, for readers of diffusers folders that know no other."""
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, place / name)


def _image_processor(clip: CLIPModel) -> dict[str, object]:
    vision: Any = clip.config.vision_config
    size = vision.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
    }


def folder_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
