"""What prompts can name beside words: LoRA, hypernetworks, embeddings, by the names of their files."""

from collections.abc import Mapping

from farm.weights.catalog import Catalog
from farm.weights.places import Kind

KINDS: Mapping[str, Kind] = {
    "lora": Kind.LORA,
    "lyco": Kind.LORA,
    "hypernet": Kind.HYPERNETWORK,
    "embedding": Kind.EMBEDDING,
}
"""Of tags in prompts, and of `embedding`: what they name."""


def addon_names(catalog: Catalog) -> dict[str, frozenset[str]]:
    """The names of all files of each kind: without folder and suffix, as prompts write them."""
    return {tag: frozenset(entry.stem for entry in catalog.of(kind).values()) for tag, kind in KINDS.items()}
