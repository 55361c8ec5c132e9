"""What prompts can name beside words: LoRA, hypernetworks, embeddings, by the names of their files."""

from collections.abc import Iterator, Mapping

from farm.weights.catalog import Catalog
from farm.weights.named import spellings
from farm.weights.places import Kind

KINDS: Mapping[str, Kind] = {
    "lora": Kind.LORA,
    "lyco": Kind.LORA,
    "hypernet": Kind.HYPERNETWORK,
    "embedding": Kind.EMBEDDING,
}
"""Of tags in prompts, and of `embedding`: what they name."""


def addon_names(catalog: Catalog) -> dict[str, frozenset[str]]:
    """The names of all files of each kind as prompts can write them, with folder and suffix or without."""
    return {tag: frozenset(_names(catalog, kind)) for tag, kind in KINDS.items()}


def _names(catalog: Catalog, kind: Kind) -> Iterator[str]:
    for entry in catalog.of(kind).values():
        yield entry.stem
        if kind is not Kind.EMBEDDING:  # whose names stand among words
            yield from (entry.name, *spellings(entry))
