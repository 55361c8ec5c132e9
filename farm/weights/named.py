"""The files that pictures are made with beside their checkpoints: as settings and prompts name them."""

from collections.abc import Iterator, Mapping
from functools import cached_property

from farm.cell import FileUse, Settings
from farm.prompts.naming import embeddings
from farm.prompts.patches import patches_of
from farm.weights.catalog import Catalog, Entry
from farm.weights.places import Kind


class Named:
    """Finds them.

    Args:
        catalog: where they are.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._found: dict[FileUse, list[Entry]] = {}
        self._matches: dict[tuple[str, ...], Mapping[FileUse, list[Entry]]] = {}
        self._uses: dict[tuple[str, ...], Mapping[FileUse, Entry]] = {}

    @cached_property
    def embedding_names(self) -> dict[str, Entry]:
        """By the names that stand in prompts."""
        found: dict[str, Entry] = {}
        for entry in self._catalog.of(Kind.EMBEDDING).values():
            found.setdefault(entry.stem, entry)
        return found

    def uses(self, settings: Settings) -> Mapping[FileUse, Entry]:
        """Those of a picture; without what there is no file of, or more than one."""
        said = _said(settings)
        if said not in self._uses:
            matches = self.matches(settings)
            self._uses[said] = {use: found[0] for use, found in matches.items() if len(found) == 1}
        return self._uses[said]

    def matches(self, settings: Settings) -> Mapping[FileUse, list[Entry]]:
        """All that each name may mean."""
        said = _said(settings)
        if said not in self._matches:
            self._matches[said] = {use: self.matching(*use) for use in self._names(settings)}
        return self._matches[said]

    def matching(self, kind: str, name: str) -> list[Entry]:
        """What a name may mean: one spelled exactly so comes first.

        Args:
            kind: of the file.
            name: as prompts have it: with or without folders and suffix.
        """
        if (kind, name) not in self._found:
            self._found[kind, name] = _matching(self._catalog.of(Kind(kind)), name)
        return self._found[kind, name]

    def _names(self, settings: Settings) -> Iterator[FileUse]:
        if settings.other_vae:
            yield Kind.VAE.value, settings.other_vae
        patches = patches_of(settings.prompt)
        yield from ((Kind.LORA.value, name) for name in patches.loras)
        yield from ((Kind.HYPERNETWORK.value, name) for name in patches.hypernetworks)
        for name in embeddings_in(settings, self.embedding_names):
            yield Kind.EMBEDDING.value, name


def _said(settings: Settings) -> tuple[str, ...]:
    """What names files: equal for most cells of a job."""
    return settings.other_vae, settings.prompt, settings.negative_prompt


def embeddings_in(settings: Settings, names: Mapping[str, object]) -> list[str]:
    """The names of embeddings that stand in the prompts of a picture, each once, in order.

    Args:
        settings: of the picture.
        names: of all embeddings.
    """
    texts = (settings.prompt, settings.negative_prompt)
    return sorted({name for text in texts for *_, name in embeddings(text, names.keys())})


def _matching(entries: Mapping[str, Entry], name: str) -> list[Entry]:
    if name in entries:
        return [entries[name]]
    exact = [entry for entry in entries.values() if name in spellings(entry)]
    folded = name.casefold()
    return exact or [
        entry for entry in entries.values() if folded in map(str.casefold, (entry.name, *spellings(entry)))
    ]


def spellings(entry: Entry) -> tuple[str, ...]:
    """What a file is called beside its name in the catalog."""
    return entry.stem, entry.path.name, entry.file_name
