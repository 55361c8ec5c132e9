"""The files that pictures are made with beside their checkpoints: as settings and prompts name them."""

from collections.abc import Iterator, Mapping
from functools import cached_property

from farm.cell import FileUse, Settings
from farm.merges import files_of
from farm.prompts.grammar import parse
from farm.prompts.naming import embeddings, untagged
from farm.prompts.patches import patches_of
from farm.weights.catalog import Catalog, Entry
from farm.weights.places import Kind
from farm.weights.widths import fits


class Named:
    """Finds them.

    Args:
        catalog: where they are.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._uses: dict[tuple[str, ...], Mapping[FileUse, Entry]] = {}
        self._found: dict[FileUse, list[Entry]] = {}

    def uses(self, settings: Settings) -> Mapping[FileUse, Entry]:
        """Those of a picture; without what there is no file of, or more than one.

        All are called as settings and tags call them, but embeddings as the catalog does.
        """
        said = (settings.model, settings.other_vae, settings.prompt, settings.negative_prompt)
        if said not in self._uses:
            found = {use: self.matching(*use) for use in _named(settings)}
            uses = {use: entries[0] for use, entries in found.items() if len(entries) == 1}
            self._uses[said] = uses | self._embeddings(settings)
        return self._uses[said]

    def matching(self, kind: str, name: str) -> list[Entry]:
        """What a name may mean: one spelled exactly so comes first.

        Args:
            kind: of the file.
            name: as tags have it: with or without folders and suffix.
        """
        if (kind, name) not in self._found:
            self._found[kind, name] = _matching(self._catalog.of(Kind(kind)), name)
        return self._found[kind, name]

    def ambiguous(self, settings: Settings) -> Mapping[str, list[Entry]]:
        """The names of a picture's tags that are those of several files, which are listed."""
        found = {name: self.matching(kind, name) for kind, name in _named(settings)}
        return {name: entries for name, entries in found.items() if len(entries) > 1}

    def words(self, settings: Settings) -> list[str]:
        """The names of embeddings in a picture's prompts that are words, as none fits the checkpoint."""
        used = {entry.stem for (kind, _), entry in self.uses(settings).items() if kind == Kind.EMBEDDING}
        return [name for name in embeddings_in(settings, self.embedding_names) if name not in used]

    def _embeddings(self, settings: Settings) -> dict[FileUse, Entry]:
        """By the names that stand in the prompts; of equal names the first that fits the checkpoint.

        As in A1111, the name of one that fits none is a word.
        """
        first, *_ = files_of(self._catalog.checkpoint(settings.model))  # of a merge, the others are alike
        found: dict[FileUse, Entry] = {}
        for name in embeddings_in(settings, self.embedding_names):
            entries = self.embedding_names[name]
            fitting = (entry for entry in entries if fits(entry.path, first))
            if (entry := next(fitting, None)) is not None:
                found[Kind.EMBEDDING.value, entry.name] = entry
        return found

    @cached_property
    def embedding_names(self) -> dict[str, list[Entry]]:
        """Those that have a name, by the names that stand in prompts."""
        found: dict[str, list[Entry]] = {}
        for entry in self._catalog.of(Kind.EMBEDDING).values():
            found.setdefault(entry.stem, []).append(entry)
        return found


def by_content(prompt: str, contents: Mapping[FileUse, str]) -> str:
    """A prompt whose tags have what is in the files in the place of their names, and do what they did.

    Args:
        prompt: the positive one.
        contents: SHA-256 of files in hex. Tags of others do nothing, and are left out.
    """
    read = parse(prompt)
    if not read.tags:
        return prompt
    patches = patches_of(prompt)
    weights: dict[str, list[float]] = {}
    for place, scales in enumerate((patches.on_text, patches.on_unet.loras)):
        for name, weight in scales:
            if content := contents.get((Kind.LORA.value, name)):
                weights.setdefault(content, [0.0, 0.0])[place] += weight
    loras = [f"<lora:{content}:{text:g}:{unet:g}>" for content, (text, unet) in sorted(weights.items())]
    hypernetworks = [
        f"<hypernet:{content}:{strength:g}>"
        for name, strength in patches.on_unet.hypernetworks
        if (content := contents.get((Kind.HYPERNETWORK.value, name)))
    ]
    return "".join(["AND".join(map(str, read.parts)), *loras, *hypernetworks])


def _named(settings: Settings) -> Iterator[FileUse]:
    """What settings and tags call by its name."""
    if settings.other_vae:
        yield Kind.VAE.value, settings.other_vae
    patches = patches_of(settings.prompt)
    yield from ((Kind.LORA.value, name) for name in patches.loras)
    yield from ((Kind.HYPERNETWORK.value, name) for name in patches.hypernetworks)


def embeddings_in(settings: Settings, names: Mapping[str, object]) -> list[str]:
    """The names of embeddings that stand in the prompts of a picture, but not in tags; each once, in order.

    Args:
        settings: of the picture.
        names: of all embeddings.
    """
    texts = (untagged(settings.prompt), settings.negative_prompt)
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
