"""Where people keep their files: the folders of A1111, Forge and ComfyUI, by what lies in them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """What a file is for."""

    CHECKPOINT = "checkpoint"
    VAE = "vae"
    LORA = "lora"
    EMBEDDING = "embedding"
    HYPERNETWORK = "hypernetwork"
    AESTHETIC_EMBEDDING = "aesthetic-embedding"
    UPSCALER = "upscaler"

    @property
    def in_words(self) -> str:
        """As a sentence has it."""
        words = {Kind.VAE: "VAE", Kind.LORA: "LoRA"}.get(self, self.value.replace("-", " "))
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


FOLDERS: Sequence[tuple[Kind, str]] = (
    (Kind.CHECKPOINT, "Stable-diffusion"),
    (Kind.CHECKPOINT, "checkpoints"),
    (Kind.VAE, "VAE"),
    (Kind.LORA, "Lora"),
    (Kind.LORA, "LyCORIS"),
    (Kind.LORA, "loras"),
    (Kind.EMBEDDING, "embeddings"),
    (Kind.HYPERNETWORK, "hypernetworks"),
    (Kind.AESTHETIC_EMBEDDING, "aesthetic_embeddings"),
    (Kind.UPSCALER, "ESRGAN"),
    (Kind.UPSCALER, "RealESRGAN"),
    (Kind.UPSCALER, "SwinIR"),
    (Kind.UPSCALER, "ScuNET"),
    (Kind.UPSCALER, "DAT"),
    (Kind.UPSCALER, "upscale_models"),
)
"""Names of folders below `models/`, whatever their case: A1111's, and those of ComfyUI that differ."""

BESIDE_MODELS: Sequence[tuple[Kind, str]] = (
    (Kind.EMBEDDING, "embeddings"),
    (Kind.AESTHETIC_EMBEDDING, "extensions/stable-diffusion-webui-aesthetic-gradients/aesthetic_embeddings"),
)
"""What A1111 keeps not below `models/` but beside it."""


def places(folders: Iterable[Path]) -> Iterator[tuple[Kind, Path]]:
    """The folders that there are, in the order in which names are looked up in them.

    Args:
        folders: each is one of models, or one that has its `models/` in it, as those of A1111 and ComfyUI.
    """
    seen: set[tuple[Kind, Path]] = set()
    for folder in folders:
        for kind, path in _places(folder):
            if (kind, path.resolve()) not in seen:
                seen.add((kind, path.resolve()))
                yield kind, path


def _places(folder: Path) -> Iterator[tuple[Kind, Path]]:
    inside = _named(folder, "models")
    for models in (*inside, folder):
        there = _folders(models)
        for kind, name in FOLDERS:
            yield from ((kind, path) for path in there if path.name.casefold() == name.casefold())
    root = folder if inside else folder.resolve().parent
    if inside or folder.name.casefold() == "models":
        for kind, name in BESIDE_MODELS:
            if (root / name).is_dir():
                yield kind, root / name


def _named(folder: Path, name: str) -> list[Path]:
    return [path for path in _folders(folder) if path.name.casefold() == name]


def _folders(folder: Path) -> list[Path]:
    """Sorted; none where there is no folder, or one that is locked."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []
    return [folder / name for name in names]
