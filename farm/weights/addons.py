"""What prompts can name beside words: LoRA, hypernetworks, embeddings, found by the names of files."""

from collections.abc import Iterator, Mapping, Sequence
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
    return {
        kind: frozenset(_names(folder / name for folder in model_folders for name in names))
        for kind, names in FOLDERS.items()
    }


def _names(folders: Iterator[Path]) -> Iterator[str]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                yield path.stem
