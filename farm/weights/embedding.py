"""Embeddings of textual inversion: vectors that a text encoder is shown in the place of tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from farm.errors import quoted
from farm.weights.tensor_info import BadFile
from farm.weights.widths import ENCODERS, ONLY, TERMS


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """Vectors that stand in a prompt where its name does.

    Attributes:
        name: as prompts write it.
        key: names it by its content, such as the SHA-256 of its file.
        vectors: `(vectors, channels)` in float32, by the text encoder; all have equally many.
        title: that its file gives it, a word or a token; empty if it gives none.
        step: of its training; None if its file does not say.
        base_model: that it was trained on; empty if its file does not say.
    """

    name: str
    key: str
    vectors: Mapping[str, torch.Tensor]
    title: str = ""
    step: int | None = None
    base_model: str = ""

    @property
    def count(self) -> int:
        """How many positions of a text it fills."""
        return len(next(iter(self.vectors.values())))

    @property
    def widths(self) -> dict[str, int]:
        """The channels of its vectors, by the text encoder."""
        return {encoder: vectors.shape[1] for encoder, vectors in self.vectors.items()}


def read_embedding(tree: Any, name: str, key: str) -> Embedding:
    """An embedding from what its file holds.

    Formats: A1111's (`string_to_param`, of torch 1.11 too), one tensor by any name (diffusers' by its token,
    `emb_params`), a tensor for each text encoder of SDXL (`clip_l`, `clip_g`).

    Args:
        tree: of the file: mappings, tensors and plain values.
        name: as prompts write it; in messages, too.
        key: names its content.

    Raises:
        BadFile: it is no embedding, of several terms or torn.
    """
    if not isinstance(tree, Mapping):
        bare = ": a tensor by itself is an aesthetic embedding, perhaps" if torch.is_tensor(tree) else ""
        raise _bad(name, f"is none{bare}")
    if TERMS in tree:
        terms = _terms(tree[TERMS])
        _, found = _only(terms, name)
        title, step, model = (tree.get(part) for part in ("name", "step", "sd_checkpoint_name"))
        return Embedding(name, key, {ONLY: _vectors(found, name)}, _text(title), _number(step), _text(model))
    tensors = {str(part): value for part, value in tree.items() if torch.is_tensor(value)}
    if any(part in ENCODERS for part in tensors):
        return Embedding(name, key, _of_encoders(tensors, name))
    title, found = _only(tensors, name)
    return Embedding(name, key, {ONLY: _vectors(found, name)}, "" if title == "emb_params" else title)


def _of_encoders(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    if others := sorted(tensors.keys() - ENCODERS.keys()):
        raise _bad(name, f"has vectors for text encoders, and {quoted(others[0])} beside them")
    found = {ENCODERS[part]: _vectors(tensor, name) for part, tensor in sorted(tensors.items())}
    counts = {len(vectors) for vectors in found.values()}
    if len(counts) > 1:
        numbers = " and ".join(f"{len(vectors)} for {encoder}" for encoder, vectors in found.items())
        raise _bad(name, f"has not equally many vectors for each text encoder: {numbers}")
    return found


def _terms(found: Any) -> Mapping[str, Any]:
    """Of a mapping, or of a `torch.nn.ParameterDict`, which torch 1.11 pickled otherwise than later ones."""
    found = getattr(found, "_parameters", found)
    return found if isinstance(found, Mapping) else {}


def _only(terms: Mapping[str, Any], name: str) -> tuple[str, Any]:
    if not terms:
        raise _bad(name, "is none: there are no vectors in it")
    if len(terms) > 1:
        first, second, *_ = map(quoted, map(str, terms))
        raise _bad(name, f"is none, or has {len(terms)} terms where one is meant: {first}, {second}, …")
    [(title, found)] = terms.items()
    return str(title), found


def _vectors(found: Any, name: str) -> torch.Tensor:
    """In float32, on the host; copied, since the tensors of a file can be mapped from it."""
    if not torch.is_tensor(found) or not found.is_floating_point():
        what = str(found.dtype) if torch.is_tensor(found) else type(found).__name__
        raise _bad(name, f"has {what} where its vectors should be")
    if found.ndim == 1:
        found = found.unsqueeze(0)
    if found.ndim != 2 or not found.numel():
        raise _bad(
            name, f"is none: its tensor is {' × '.join(map(str, found.shape))}, not vectors × channels"
        )
    vectors: torch.Tensor = found.detach().to("cpu", torch.float32, copy=True)
    if not vectors.isfinite().all():
        raise _bad(name, "has numbers that are not finite")
    return vectors


def _text(found: Any) -> str:
    return found if isinstance(found, str) else ""


def _number(found: Any) -> int | None:
    return found if isinstance(found, int) else None


def _bad(name: str, what: str) -> BadFile:
    return BadFile(f"the embedding {quoted(name)} {what}")
