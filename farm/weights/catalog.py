"""What lies in people's folders of models: found by looking at names, never by loading weights."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farm.merges import Checkpoint, Merge, merge_of
from farm.weights.diffusers_folder import INDEX, is_vae
from farm.weights.hashes import content_files
from farm.weights.places import Kind, places

SUFFIXES = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin"})
"""Of files with weights, whatever their case."""

PICTURES = frozenset({".png", ".webp"})
"""Of pictures that can have an embedding in them."""

VAE_OF = ".vae"
"""Stands before the suffix of a VAE that lies beside the checkpoint that it is for."""

SHORT_HASH = 10
"""Digits of a content hash that A1111 shows."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder that jobs can name.

    Attributes:
        kind: by the folder it lies in.
        name: its path below that folder, with `/`, without suffix where that is enough to tell it apart.
        path: of the file, or of the diffusers folder.
        file_name: its path below that folder, whole.
    """

    kind: Kind
    name: str
    path: Path
    file_name: str

    @property
    def stem(self) -> str:
        """Its name without folders and suffix."""
        return self.path.name if self.path.is_dir() else self.path.stem

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(file.stat().st_size for file in content_files(self.path))


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that was found.

    Attributes:
        entries: of each kind, by name.
    """

    entries: Mapping[Kind, Mapping[str, Entry]] = field(default_factory=dict)

    def of(self, kind: Kind) -> Mapping[str, Entry]:
        """Those of a kind, by name."""
        return self.entries.get(kind, {})

    def checkpoint(self, name: str) -> Checkpoint:
        """Where the weights of a checkpoint are, by its name in settings; it may be a merge's."""
        there = self.of(Kind.CHECKPOINT)
        merge = None if name in there else merge_of(name)
        if merge is None:
            return there[name].path
        return Merge(tuple(there[part].path for part in merge.parts), merge.method, merge.weight)

    def vaes_beside(self) -> dict[str, str]:
        """The names of the VAEs that lie beside checkpoints, by the names of these."""
        vaes = {entry.path: name for name, entry in self.of(Kind.VAE).items()}
        found: dict[str, str] = {}
        for name, entry in self.of(Kind.CHECKPOINT).items():
            stem = entry.path.parent / entry.stem
            paths = (stem.with_name(f"{stem.name}{VAE_OF}{suffix}") for suffix in sorted(SUFFIXES))
            beside = next((vaes[path] for path in paths if path in vaes), None)
            if beside is not None:
                found[name] = beside
        return found


def find_models(model_folders: Sequence[Path]) -> Catalog:
    """All that lies in these folders; of equal names, that of an earlier folder counts."""
    found: dict[Kind, list[list[Entry]]] = {kind: [] for kind in Kind}
    for kind, folder in places(model_folders):
        for part, entries in _entries(kind, folder).items():
            found[part].append(entries)
    return Catalog({kind: _by_name(groups) for kind, groups in found.items()})


def other_names(entry: Entry, known_hash: str) -> tuple[str, ...]:
    """What an entry answers to beside its name: its stem, its file's name, its hash, its title in A1111.

    Args:
        entry: one of a catalog.
        known_hash: SHA-256 in hex; empty if nobody knows it yet.
    """
    file = entry.file_name
    names = [entry.stem, file, file.rpartition("/")[2]]
    if known_hash:
        short = known_hash[:SHORT_HASH]
        names += [short, known_hash, f"{file} [{short}]"]
    return tuple(name for name in dict.fromkeys(names) if name != entry.name)


def _by_name(groups: Iterable[Iterable[Entry]]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in (entry for group in groups for entry in group):
        found.setdefault(entry.name, entry)
    return found


def _entries(kind: Kind, root: Path) -> dict[Kind, list[Entry]]:
    """What lies in a folder of one kind; VAEs can lie among checkpoints."""
    suffixes = SUFFIXES | PICTURES if kind is Kind.EMBEDDING else SUFFIXES
    paths = list(_paths(root, IS_FOLDER_OF.get(kind), suffixes))
    files = [path.relative_to(root).as_posix() if path != root else root.name for path in paths]
    short = [file if path.is_dir() else _stem(file) for path, file in zip(paths, files)]
    found: dict[Kind, list[Entry]] = {kind: []}
    for path, file, name in zip(paths, files, short):
        own = Kind.VAE if kind is Kind.CHECKPOINT and _is_vae_beside(path) else kind
        unique = name if short.count(name) == 1 else file
        found.setdefault(own, []).append(Entry(own, unique, path, file))
    return found


def _is_vae_beside(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and Path(path.stem).suffix.lower() == VAE_OF


def _stem(file: str) -> str:
    return file[: -len(Path(file).suffix)]


IS_FOLDER_OF: Mapping[Kind, Callable[[Path, Sequence[str]], bool]] = {
    Kind.CHECKPOINT: lambda _, files: INDEX in files,
    Kind.VAE: lambda folder, _: is_vae(folder),
}
"""Of which kinds a folder of diffusers can be one, and how that is seen."""


def _paths(
    root: Path, is_folder_of: Callable[[Path, Sequence[str]], bool] | None, suffixes: Iterable[str]
) -> Iterator[Path]:
    """Files and diffusers folders, sorted; links are followed, but each folder is entered once."""
    seen: set[str] = set()
    for name, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        folder = Path(name)
        if (real := os.path.realpath(name)) in seen:
            folders.clear()
            continue
        seen.add(real)
        if is_folder_of is not None and is_folder_of(folder, files):
            folders.clear()
            yield folder
            continue
        for file in sorted(files):
            if Path(file).suffix.lower() in suffixes and (folder / file).is_file():
                yield folder / file
