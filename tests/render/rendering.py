"""Renders settings with a real checkpoint, for the tests that compare pictures."""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from farm.cell import Cell, Settings
from farm.init_images import InitImage
from farm.init_pixels import InitPixels, made_ready
from farm.render.capacity import Capacity
from farm.render.engine import Engine
from farm.render.files import NO_FILES, Files
from farm.render.memory import Memory
from farm.render.recipes import text_to_image
from farm.render.renderer import Renderer
from farm.render.requests import Predict, Request
from farm.render.runner import Runner
from farm.sampling import BUILT_IN
from farm.starting import init_pictures
from farm.weights.checkpoint import Networks
from farm.weights.embedding import Embedding
from farm.work import Work

LEVELS = 2
"""Of 255: what another composition of a batch may change in float32."""


ADAPTIVE_LEVELS = 8
"""What it may change where the sampler's step lengths hang on the latents, and carry a rounding on."""


def levels_of(settings: Settings) -> int:
    return ADAPTIVE_LEVELS if BUILT_IN[settings.sampler].chooses_steps else LEVELS


class Counting(Runner):
    """A runner that counts the rows of each kind of request it answers, batch by batch.

    Attributes:
        calls: the name and the rows of each batch.
        shallow: rows that used deep features of before.
    """

    shallow = 0

    def __init__(
        self, networks: Networks, device: str = "cpu", memory: Memory | None = None, files: Files = NO_FILES
    ) -> None:
        super().__init__(lambda *_: networks, torch.device(device), memory=memory, files=files)
        self.calls: list[tuple[str, int]] = []

    def run(self, requests: list[Request]) -> list[Any]:
        self.calls.append((type(requests[0]).__name__, len(requests)))
        self.shallow += sum(isinstance(one, Predict) and one.features is not None for one in requests)
        return super().run(requests)

    def rows(self, kind: str) -> int:
        return sum(count for name, count in self.calls if name == kind)


def cat_file(width: int = 80, height: int = 64) -> tuple[str, bytes]:
    """A picture's file, and its SHA-256: shapes of some colours, smooth enough for a VAE."""
    image, file = Image.new("RGB", (width, height), "steelblue"), io.BytesIO()
    draw = ImageDraw.Draw(image)
    draw.ellipse((width * 0.3, height * 0.2, width * 0.7, height * 0.8), "orange")
    draw.ellipse((width * 0.4, height * 0.35, width * 0.45, height * 0.45), "black")
    image.save(file, "PNG")
    return hashlib.sha256(file.getvalue()).hexdigest(), file.getvalue()


def pixels_for(cells: Iterable[Settings], pictures: Mapping[str, bytes]) -> InitPixels:
    """What cells start from, of pictures by the SHA-256 of their files."""
    images = {key: InitImage(key, content) for key, content in pictures.items()}
    return made_ready(init_pictures(cells), images)


def render(
    cells: Sequence[Settings],
    runner: Counting,
    rows: int | None = None,
    pictures: Mapping[str, bytes] = MappingProxyType({}),
    embeddings: Mapping[str, Embedding] = MappingProxyType({}),
) -> list[np.ndarray]:
    """Pictures `(height, width, 3)` of cells, rendered together by an engine of their own."""
    engine = Engine(runner, Capacity(torch.device("cpu"), rows))
    ready = pixels_for(cells, pictures)
    for number, settings in enumerate(cells):
        engine.submit(number, text_to_image(settings, BUILT_IN, ready, embeddings))
    rendered: dict[Any, np.ndarray] = {}
    while engine.in_flight:
        for finished in engine.step():
            assert finished.error is None, finished.error
            rendered[finished.name] = finished.result.pixels.numpy()
    return [rendered[number] for number in range(len(cells))]


def apart(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two pictures, in levels of 255."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@torch.inference_mode()
def prompt_states(networks: Networks, text: str) -> torch.Tensor:
    """States `(1, 77, channels)` as diffusers' pipeline makes them."""
    tokens = networks.tokenizer(
        text, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    return networks.text_encoder(tokens.input_ids)[0]


def drawn(renderer: Renderer, cells: Iterable[Cell]) -> tuple[list[np.ndarray], Work]:
    """Pictures `(height, width, 3)` by the cells' numbers, and what was done; closes the renderer."""
    for cell in cells:
        renderer.submit(cell)
    found: dict[int, np.ndarray] = {}
    while not renderer.idle:
        for one in renderer.step():
            assert one.image is not None, one.error
            found[one.cell.number] = np.asarray(one.image)
    work = renderer.take_work()
    renderer.close()
    return [found[number] for number in sorted(found)], work
