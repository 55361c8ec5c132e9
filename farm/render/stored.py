"""Files that cells name beside checkpoints, where they lie on this machine."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from farm.cell import FileUse, UsedFile
from farm.errors import CellFailed
from farm.render.files import Files, LoraFile
from farm.weights.contents import read_contents
from farm.weights.embedding import Embedding
from farm.weights.embedding_file import load_embedding
from farm.weights.hypernetwork import Hypernetwork, read_hypernetwork
from farm.weights.places import Kind
from farm.weights.reading import read_object, read_tensors
from farm.weights.vae import load_vae


class Stored:
    """Reads them.

    Args:
        paths: of each, by its kind and the name that cells call it.
    """

    def __init__(self, paths: Mapping[FileUse, Path]) -> None:
        self._paths = paths
        self._known: dict[str, Embedding] = {}

    def as_files(self) -> Files:
        """As runners ask for them."""
        return Files(self._vae, self._lora, self._hypernetwork)

    def embeddings(self, files: Iterable[UsedFile]) -> dict[str, Embedding]:
        """Those among the files of a picture, by their names in prompts.

        Raises:
            FarmError: one cannot be read.
        """
        names = [file.name for file in files if file.kind == Kind.EMBEDDING]
        return {self._paths[Kind.EMBEDDING, name].stem: self._embedding(name) for name in names}

    def _embedding(self, name: str) -> Embedding:
        if name not in self._known:
            path = self._paths[Kind.EMBEDDING, name]
            self._known[name] = load_embedding(path, path.stem)
        return self._known[name]

    def _vae(self, name: str, scaling_factor: float, device: torch.device, dtype: torch.dtype) -> Any:
        if ("vae", name) not in self._paths:
            raise CellFailed(f"the VAE {name!r} is not on this machine")
        return load_vae(self._paths["vae", name], scaling_factor, device, dtype)

    def _lora(self, name: str) -> LoraFile | None:
        path = self._paths.get(("lora", name))
        return None if path is None else LoraFile(read_tensors(path), read_contents(path).metadata)

    def _hypernetwork(self, name: str) -> Hypernetwork | None:
        path = self._paths.get(("hypernetwork", name))
        return None if path is None else read_hypernetwork(read_object(path), name)
