"""What prompts can name beside words: LoRA, hypernetworks, embeddings, found by the names of files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

FOLDERS: Mapping[str, tuple[str, ...]] = {
    "lora": ("Lora", "LyCORIS"),
    "lyco": ("LyCORIS", "Lora"),
    "hypernet": ("hypernetworks",),
    "embedding": ("embeddings",),
}
"""Of each kind, the folders below models/ as A1111 calls them; a tag's kind, or `embedding`."""

SUFFIXES = frozenset({".safetensors", ".pt", ".bin", ".ckpt", ".png", ".webp"})


def find_addons(model_folders: Sequence[Path]) -> dict[str, frozenset[str]]:
    """The names of all files of each kind: without folder and suffix, as prompts write them."""
    places = {
        kind: [folder / name for folder in model_folders for name in names] for kind, names in FOLDERS.items()
    }
    places["embedding"] += [folder.parent / "embeddings" for folder in model_folders]  # A1111's own place
    return {kind: frozenset(_names(folders)) for kind, folders in places.items()}


def _names(folders: Iterable[Path]) -> Iterator[str]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                yield path.stem
