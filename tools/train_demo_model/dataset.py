"""The training pictures on disk: drawn once, then read as memory maps."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]  # ships no types

from .attributes import LEVELS, Cat, sample_cat
from .drawing import PICTURE_SIZE, draw_cat

POSE = {"x": (32.0, 3.0), "y": (35.5, 1.5), "size": (18.8, 1.0), "tilt": (0.0, 0.15), "ears": (1.0, 0.1)}
"""Mean and spread of the pose numbers, for predicting them."""


@dataclass(frozen=True)
class Pictures:
    """A set of drawn portraits.

    Attributes:
        cats: What each picture shows.
        pixels: uint8, (count, height, width, 3).
        saliency: uint8, (count, height, width).
        labels: int64, (count, attributes), in the order of `LEVELS`.
        pose: float32, (count, numbers), standardized, in the order of `POSE`.
    """

    cats: list[Cat]
    pixels: NDArray[np.uint8]
    saliency: NDArray[np.uint8]
    labels: Tensor
    pose: Tensor

    def __len__(self) -> int:
        return len(self.cats)

    def images(self, index: NDArray[np.int64]) -> Tensor:
        """Pictures in −1 … 1, (batch, 3, height, width)."""
        batch = torch.from_numpy(self.pixels[index]).permute(0, 3, 1, 2)
        return batch.float() / 127.5 - 1

    def weights(self, index: NDArray[np.int64]) -> Tensor:
        """Saliency in 0 … 1, (batch, 1, height, width)."""
        return torch.from_numpy(self.saliency[index])[:, None].float() / 255


def cat_at(seed: int, index: int) -> Cat:
    """The cat of one picture; the same for the same seed and index on every machine."""
    return sample_cat(np.random.default_rng((seed, index)))


def _draw(job: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return draw_cat(cat_at(*job))


def draw_pictures(folder: Path, count: int, seed: int, workers: int = 2) -> None:
    """Draw `count` portraits into `folder`, unless they are there already."""
    done = folder / "cats.json"
    if done.exists() and len(json.loads(done.read_text())) == count:
        return
    folder.mkdir(parents=True, exist_ok=True)
    shape = (count, PICTURE_SIZE, PICTURE_SIZE)
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (*shape, 3))
    saliency = np.lib.format.open_memmap(folder / "saliency.npy", "w+", np.uint8, shape)
    jobs = [(seed, index) for index in range(count)]
    with ProcessPoolExecutor(workers) as pool:
        drawn = pool.map(_draw, jobs, chunksize=64)
        for index, (picture, weight) in enumerate(tqdm(drawn, total=count, desc="draw")):
            pixels[index], saliency[index] = picture, weight
    pixels.flush()
    saliency.flush()
    done.write_text(json.dumps([asdict(cat_at(*job)) for job in jobs]))


def load_pictures(folder: Path) -> Pictures:
    """Open what `draw_pictures` wrote."""
    cats = [Cat(**fields) for fields in json.loads((folder / "cats.json").read_text())]
    pose = [[(getattr(cat, name) - mean) / spread for name, (mean, spread) in POSE.items()] for cat in cats]
    return Pictures(
        cats=cats,
        pixels=np.load(folder / "pixels.npy", mmap_mode="r"),
        saliency=np.load(folder / "saliency.npy", mmap_mode="r"),
        labels=torch.tensor([cat.labels() for cat in cats]),
        pose=torch.tensor(pose),
    )


def label_counts() -> list[int]:
    """How many values each attribute has, in the order of `LEVELS`."""
    return [len(values) for values in LEVELS.values()]
