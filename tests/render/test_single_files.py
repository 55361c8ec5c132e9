"""Checkpoints in single files: against diffusers' own readers of them, and with other VAEs."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from farm.cell import Cell, Settings
from farm.layout import Layout
from farm.plan import Plan
from farm.render.renderer import Renderer
from farm.weights.loading import load_checkpoint
from farm.weights.tokenizer import CLIP, load_tokenizer
from tests.render.rendering import LEVELS, Counting, apart, cat_file, drawn, pixels_for, render
from tests.weights.original_files import Tiny, original_vae, tiny, write

pytestmark = pytest.mark.slow  # there are many of them, on networks of several kinds

CPU = torch.device("cpu")
WANTED = Settings(
    "m", "a ginger cat", "blurry", "diffusers:DDIMScheduler", 5, 5.0, 3, 64, 64, schedule="automatic", eta=0.0
)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def folder_of(made: Tiny, folder: Path, prediction_type: str) -> Path:
    """The checkpoint as diffusers writes it; its reader of single files takes configurations from there."""
    scheduler = diffusers.DDIMScheduler(
        **BETAS, prediction_type=prediction_type, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    tokenizers = [load_tokenizer(CLIP, pads_with_zero=zero) for zero in PADDED[made.family]]
    parts: dict[str, Any] = {
        "vae": made.vae, "unet": made.unet, "scheduler": scheduler, "text_encoder": made.text_encoders[0],
        "tokenizer": tokenizers[0],
    }  # fmt: skip
    if made.family == "sdxl":
        parts |= {"text_encoder_2": made.text_encoders[1], "tokenizer_2": tokenizers[1]}
        diffusers.StableDiffusionXLPipeline(**parts).save_pretrained(folder)
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        diffusers.StableDiffusionPipeline(**parts).save_pretrained(folder)
    return folder


PADDED = {"sd1": [False], "sd2": [True], "sdxl": [False, True]}


@pytest.mark.parity
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
@pytest.mark.parametrize(
    ("family", "prediction_type"),
    [("sd1", "epsilon"), ("sd2", "epsilon"), ("sd2", "v_prediction"), ("sdxl", "epsilon")],
)
def test_a_file_renders_as_diffusers_reads_it(
    family: str, prediction_type: str, suffix: str, tmp_path: Path
) -> None:
    made = tiny(family)
    folder = folder_of(made, tmp_path / "config", prediction_type)
    path = write(made, tmp_path / f"a.{suffix}")
    kind = diffusers.StableDiffusionXLPipeline if family == "sdxl" else diffusers.StableDiffusionPipeline
    theirs = kind.from_single_file(str(path), config=str(folder), local_files_only=True)
    theirs.scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
    theirs.set_progress_bar_config(disable=True)
    [image] = theirs(
        WANTED.prompt, negative_prompt=WANTED.negative_prompt, num_inference_steps=WANTED.steps, width=64,
        guidance_scale=WANTED.cfg_scale, height=64, generator=torch.Generator().manual_seed(WANTED.seed),
    ).images  # fmt: skip
    wanted = replace(WANTED, prediction_type=prediction_type if family == "sd2" else None)
    ours = render([wanted], Counting(load_checkpoint(path, CPU, torch.float32)))[0]
    assert np.asarray(image).std() > 5 and apart(ours, np.asarray(image)) <= LEVELS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two checkpoints, and the VAE of a third one as a file of its own."""
    folder = tmp_path_factory.mktemp("files")
    vae = tiny("sdxl").vae
    save_file(original_vae(vae), folder / "fine.safetensors")
    return {
        "a": write(tiny("sd1"), folder / "a.safetensors"),
        "b": write(tiny("sd2"), folder / "b.safetensors"),
        "fine": folder / "fine.safetensors",
    }


def rendered(cells: list[Settings], files: dict[str, Path], pictures: Any = None) -> tuple[list[Any], Any]:
    """Pictures, and what was done."""
    checkpoints = {name: files[name] for name in "ab"}
    renderer = Renderer(checkpoints, "cpu", files={("vae", "fine"): files["fine"]}, pictures=pictures or {})
    return drawn(renderer, [Cell(number, (), settings) for number, settings in enumerate(cells, 1)])


OWN = replace(WANTED, model="a", sampler="Euler", schedule="uniform", eta=None)


def test_another_vae_makes_the_picture_that_a_checkpoint_with_it_makes(files: dict[str, Path]) -> None:
    networks = load_checkpoint(files["a"], CPU, torch.float32)
    other = tiny("sdxl").vae
    other.register_to_config(scaling_factor=0.18215)  # of the checkpoint, whatever VAE it has
    [alone] = render([OWN], Counting(replace(networks, vae=other)))
    (own, fine), _ = rendered([OWN, replace(OWN, vae="fine")], files)
    assert apart(fine, alone) <= LEVELS and apart(fine, own) > 20


@pytest.mark.parametrize("init", [False, True], ids=["from noise", "from a picture"])
def test_a_sweep_of_vaes_shares_what_it_can_and_does_what_was_planned(
    init: bool, files: dict[str, Path]
) -> None:
    key, content = cat_file()
    picture = {"init_image": key, "denoising_strength": 0.6} if init else {}
    base = {"a": replace(OWN, **picture), "b": replace(OWN, model="b", prediction_type="epsilon", **picture)}
    cells = [
        replace(base[model], vae=vae, cfg_scale=scale)
        for model, vae, scale in product("ab", ("automatic", "fine"), (3.0, 5.0))
    ]
    numbered = tuple(Cell(number, (), settings) for number, settings in enumerate(cells, 1))
    plan = Plan("a", (), Layout(), numbered)
    pictures, work = rendered(cells, files, pixels_for(cells, {key: content}) if init else None)
    assert work.of("predict").rows == plan.rows()
    assert work.of("encode image").rows == plan.image_encodings() == (4 if init else 0)
    assert (work.of("load").calls, work.of("load vae").calls) == (2, 1)
    assert len({picture.tobytes() for picture in pictures}) == len(cells)


def test_a_vae_that_is_not_there_fails_its_cells_alone(files: dict[str, Path]) -> None:
    renderer = Renderer({"a": files["a"]}, "cpu")
    for number, vae in enumerate(("automatic", "gone"), 1):
        renderer.submit(Cell(number, (), replace(OWN, vae=vae)))
    errors: dict[int, str] = {}
    while not renderer.idle:
        errors |= {one.cell.number: one.error for one in renderer.step()}
    renderer.close()
    assert errors == {1: "", 2: "the VAE 'gone' is not on this machine"}
