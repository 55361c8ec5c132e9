from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from farm.weights.checkpoint import Networks
from farm.weights.loading import load_checkpoint
from tests.render.tiny_sdxl import inpainting_parts, saved, sdxl_parts


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def networks(tiny_model: Path) -> Networks:
    return load_checkpoint(tiny_model, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def whole_pipeline(tiny_model: Path) -> StableDiffusionPipeline:
    whole = StableDiffusionPipeline.from_pretrained(tiny_model, dtype=torch.float32, safety_checker=None)
    whole.to(torch.float32)
    whole.set_progress_bar_config(disable=True)
    if not hasattr(whole.text_encoder, "text_model"):  # which diffusers still asks for clip_skip
        object.__setattr__(whole.text_encoder, "text_model", whole.text_encoder)
    return whole


@pytest.fixture(scope="session")
def sdxl_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL with few channels and random weights, as diffusers saves it."""
    return saved(tmp_path_factory.mktemp("sdxl"), sdxl_parts(tiny_model / "tokenizer"))


@pytest.fixture(scope="session")
def sdxl(sdxl_folder: Path) -> Networks:
    return load_checkpoint(sdxl_folder, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def inpainting(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """Stable Diffusion 1.5 for inpainting, likewise."""
    folder = saved(tmp_path_factory.mktemp("inpainting"), inpainting_parts(tiny_model / "tokenizer"))
    return load_checkpoint(folder, torch.device("cpu"), torch.float32)


@pytest.fixture
def pipeline(whole_pipeline: StableDiffusionPipeline) -> Iterator[StableDiffusionPipeline]:
    """The tests may give it a scheduler: it gets the model's own back."""
    own = whole_pipeline.scheduler
    yield whole_pipeline
    whole_pipeline.scheduler = own
