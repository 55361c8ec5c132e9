"""Which embeddings fit which checkpoints: by the widths of vectors and of text encoders. Without torch."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from farm.errors import FarmError
from farm.weights.catalog import PICTURES
from farm.weights.configs import text_configs_of
from farm.weights.contents import TensorInfo, read_contents

ONLY = "clip_l"
"""The text encoder that files with vectors for one alone mean: of SD 1.x and 2.x the only one."""

ENCODERS: Mapping[str, str] = {
    "clip_l": "clip_l",
    "clip_g": "clip_g",
    "text_encoders_0": "clip_l",  # diffusers' training scripts
    "text_encoders_1": "clip_g",
}
"""The keys by which files of SDXL name its text encoders."""

TERMS = "string_to_param"
"""Where A1111's files have their vectors."""


def fits(embedding: Path, checkpoint: Path) -> bool:
    """Whether the vectors of an embedding can stand among the tokens of a checkpoint.

    What nobody can tell from headers does; it is found out when it is read.
    """
    try:
        vectors, encoders = _of_vectors(embedding), _of_encoders(checkpoint)
    except (FarmError, OSError):
        return True
    return not vectors or not encoders or vectors == encoders


@lru_cache(1024)
def _of_vectors(path: Path) -> tuple[int, ...]:
    """By text encoder; nothing for pictures, which are not looked into."""
    if path.suffix.lower() in PICTURES:
        return ()
    tree = read_contents(path).tree
    tree = tree.get(TERMS, tree) if isinstance(tree, Mapping) else {}
    found = {
        ENCODERS.get(str(name), ONLY): info.shape[-1]
        for name, info in tree.items()
        if isinstance(info, TensorInfo) and info.shape
    }
    return tuple(found[name] for name in sorted(found, reverse=True))  # clip_l before clip_g


@lru_cache(1024)
def _of_encoders(path: Path) -> tuple[int, ...]:
    return tuple(int(config.get("hidden_size", 0)) for config in text_configs_of(path))
