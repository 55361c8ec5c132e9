"""The stages of a training, each from what the earlier ones left in the work folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPTokenizer

from .captions import vocabulary
from .card import clip_card, model_card
from .clip import ClipTraining, build_clip, text_tower, train_clip
from .dataset import Pictures, draw_pictures, load_pictures
from .evaluate import clip_figures, fidelity, measured_cats, reconstruction
from .export import build_pipeline, export_clip, export_model, folder_sizes
from .judge import Judge, train_judge
from .recipe import Recipe
from .sheet import prompt_sheet, reconstruction_sheet, seed_sheet
from .tokenizer import build_tokenizer, load_tokenizer
from .training import averaged_state, spent, write_atomically
from .unet import build_unet, embed_captions, train_unet
from .vae import VaeTraining, build_vae, encode_all, train_decoder, train_vae

NAME = "tiny-cats"
TRAINED = ("clip", "vae", "decoder", "unet", "judge")


@dataclass(frozen=True)
class Workshop:
    """A recipe, the folder for unfinished things, and the models folder the result goes to."""

    recipe: Recipe
    work: Path
    out: Path

    @property
    def model_folder(self) -> Path:
        """Where the diffusers folder goes."""
        return self.out / "Stable-diffusion" / NAME

    @property
    def clip_folder(self) -> Path:
        """Where the CLIP folder goes."""
        return self.out / "clip" / NAME

    @cached_property
    def pictures(self) -> Pictures:
        """The training pictures."""
        return load_pictures(self.work / "pictures")

    @cached_property
    def held_out(self) -> Pictures:
        """Pictures that no stage trains on."""
        return load_pictures(self.work / "held_out")

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer."""
        return load_tokenizer(self.work / "tokenizer")

    def trained_clip(self) -> ClipTraining:
        """CLIP and its heads, as trained so far."""
        size = self.recipe.clip_size
        both = ClipTraining(build_clip(size, self.tokenizer, self.recipe.clip.seed), size.width)
        both.load_state_dict(averaged_state(self.work, "clip"), strict=False)
        return both.eval()

    def trained_vae(self, with_decoder: bool = True) -> AutoencoderKL:
        """The autoencoder as trained so far; its tuned decoder, if there is one and it is wanted."""
        both = VaeTraining(build_vae(self.recipe.vae_size, self.recipe.vae.seed), self.recipe.vae_size)
        both.load_state_dict(averaged_state(self.work, "vae"))
        if with_decoder and (self.work / "decoder.pt").exists():
            both.vae.load_state_dict(averaged_state(self.work, "decoder"), strict=False)
        return both.vae.eval()

    def trained_unet(self) -> UNet2DConditionModel:
        """The denoiser as trained so far."""
        unet = build_unet(self.recipe.unet_size, self.recipe.unet.seed)
        unet.load_state_dict(averaged_state(self.work, "unet"))
        return unet.eval()

    def trained_judge(self) -> Judge:
        """The classifier that measures."""
        judge = Judge(self.recipe.vae_size.picture)
        judge.load_state_dict(averaged_state(self.work, "judge"))
        return judge.eval()

    def latents(self) -> Tensor:
        """Unscaled latents of the training pictures, encoded once: (count, 4, height/8, width/8)."""
        path = self.work / "latents.pt"
        if not path.exists():
            write_atomically(encode_all(self.trained_vae(with_decoder=False), self.pictures), path)
        latents: Tensor = torch.load(path, weights_only=True)
        return latents

    def pipeline(self) -> StableDiffusionPipeline:
        """The model as trained so far, in single precision."""
        vae = self.trained_vae()
        vae.register_to_config(scaling_factor=1 / float(self.latents().std()))
        return build_pipeline(vae, text_tower(self.trained_clip().clip), self.tokenizer, self.trained_unet())

    def notes(self) -> str:
        """What a person wrote about this training in `notes.md`, for the card."""
        path = self.work / "notes.md"
        return path.read_text() if path.exists() else ""

    def figures(self) -> dict[str, object]:
        """What `evaluate` measured, or nothing yet."""
        path = self.work / "figures.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}


def draw(shop: Workshop) -> None:
    """Draw the pictures."""
    recipe = shop.recipe
    draw_pictures(shop.work / "held_out", recipe.held_out, recipe.held_out_seed)
    draw_pictures(shop.work / "pictures", recipe.pictures, recipe.picture_seed)


def tokenizer(shop: Workshop) -> None:
    """Build the tokenizer."""
    build_tokenizer(shop.work / "tokenizer", vocabulary())


def clip(shop: Workshop) -> None:
    """Train CLIP."""
    train_clip(shop.work, shop.pictures, shop.tokenizer, shop.recipe.clip_size, shop.recipe.clip)


def vae(shop: Workshop) -> None:
    """Train encoder and decoder together."""
    train_vae(shop.work, shop.pictures, shop.recipe.vae_size, shop.recipe.vae)


def decoder(shop: Workshop) -> None:
    """Tune the decoder on the finished encoder's latents."""
    latents = shop.latents()
    train_decoder(
        shop.work, shop.pictures, latents, shop.trained_vae(with_decoder=False), shop.recipe.decoder
    )


def judge(shop: Workshop) -> None:
    """Train the classifier that measures."""
    train_judge(shop.work, shop.pictures, shop.recipe.judge)


def unet(shop: Workshop) -> None:
    """Embed the captions, then train the denoiser."""
    recipe, tower = shop.recipe, text_tower(shop.trained_clip().clip)
    conditions = embed_captions(
        shop.work, shop.pictures, tower, shop.tokenizer, recipe.captions, recipe.caption_seed
    )
    latents = shop.latents()
    train_unet(shop.work, latents / latents.std(), conditions, recipe.unet_size, recipe.unet)


def export(shop: Workshop) -> None:
    """Write both model folders."""
    tokens = shop.work / "tokenizer"
    figures = shop.figures()
    export_clip(shop.trained_clip().clip, tokens, shop.clip_folder, clip_card(figures))
    export_model(shop.pipeline(), tokens, shop.model_folder, model_card(figures, {}, shop.notes()))
    card(shop)


def evaluate(shop: Workshop) -> None:
    """Measure the exported model and draw the contact sheets."""
    recipe, sheets = shop.recipe, shop.work / "sheets"
    pipeline = load_exported(shop)
    measure, cats = shop.trained_judge(), measured_cats(shop.held_out, recipe.prompts)
    figures = {
        "vae": reconstruction(pipeline.vae, measure, shop.held_out),
        "clip": clip_figures(shop.trained_clip(), shop.tokenizer, shop.held_out),
        "fidelity": fidelity(pipeline, measure, cats, recipe.guidance, recipe.step_counts),
        "prompts": len(cats),
        "steps": {name: spent(shop.work, name)[0] for name in TRAINED},
        "seconds": {name: round(spent(shop.work, name)[1]) for name in TRAINED},
        "batch": {name: getattr(recipe, name).batch for name in TRAINED},
    }
    (shop.work / "figures.json").write_text(json.dumps(figures, indent=1))
    prompt_sheet(pipeline, sheets / "prompts.png", recipe.guidance, recipe.step_counts)
    seed_sheet(pipeline, sheets / "seeds.png", recipe.step_counts[-1])
    reconstruction_sheet(pipeline.vae, shop.held_out, sheets / "reconstructions.png")


def load_exported(shop: Workshop) -> StableDiffusionPipeline:
    """The exported folder as anyone would open it."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        shop.model_folder, local_files_only=True, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def card(shop: Workshop) -> None:
    """Write the cards again, with the newest figures; the sizes count the card itself."""
    figures = shop.figures()
    for _ in range(2):
        sizes = folder_sizes(shop.model_folder)
        write_text(model_card(figures, sizes, shop.notes()), shop.model_folder / "README.md")
    write_text(clip_card(figures), shop.clip_folder / "README.md")


def write_text(text: str, path: Path) -> None:
    """Replace a text file at once."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(text)
    os.replace(fresh, path)


STAGES: dict[str, Callable[[Workshop], None]] = {
    "draw": draw,
    "tokenizer": tokenizer,
    "clip": clip,
    "vae": vae,
    "decoder": decoder,
    "judge": judge,
    "unet": unet,
    "export": export,
    "evaluate": evaluate,
    "card": card,
}
"""Every stage in the order in which they run."""
