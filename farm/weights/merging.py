"""Checkpoints that are made of others, tensor by tensor: as A1111's checkpoint merger makes them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from farm.merges import Merge, Method
from farm.weights.contents import BadFile
from farm.weights.reading import read_tensors

Tensors = Mapping[str, torch.Tensor]

LATENT_CHANNELS = 4
WIDER = (9, 8)
"""Input channels of UNets for inpainting and of instruct-pix2pix: the latents come first."""

MERGED = "model"
"""Stands in the names of tensors that are merged; others, such as `v_pred`, are the first one's."""

NOT_MERGED = "position_ids"
"""The end of a name: they count positions."""

LEFT_OUT = "model_ema."
"""The beginning of names: averaged weights beside the others, which nobody uses to render."""

_EARLY, _LATER = "cond_stage_model.transformer.", "cond_stage_model.transformer.text_model."
"""What the names of Stable Diffusion 1.x's text encoder begin with, in its first files and in all others."""


class Merging:
    """The tensors of a merge, made one after the other when they are asked for.

    Memory is needed for one tensor: those of the parts are mapped from their files.

    Args:
        merge: of checkpoints in single files.

    Raises:
        BadFile: a file cannot be read, or its tensors have other shapes than those of the first.
    """

    def __init__(self, merge: Merge[Path]) -> None:
        self._merge = merge
        first, *others = (read_tensors(path) for path in merge.parts)
        self._first: Tensors = {
            name: tensor for name, tensor in first.items() if not name.startswith(LEFT_OUT)
        }
        self._others = [_found_by(self._first, tensors) for tensors in others]
        for name, tensor in self._first.items():
            for path, tensors in zip(merge.parts[1:], self._others):
                if _is_merged(name) and name in tensors:
                    self._check(name, tensor, tensors[name], path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._first)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""
        return tuple(self._first[name].shape)

    def dtype(self, name: str, wanted: torch.dtype) -> torch.dtype:
        """Of a tensor, if numbers with fractions are to be `wanted`."""
        own = self._first[name].dtype
        return wanted if own.is_floating_point else own

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor; float32 unless it is of whole numbers."""
        first = self._first[name]
        if not first.is_floating_point():
            return first
        if not _is_merged(name) or not all(name in tensors for tensors in self._others):
            return first.float()
        return _merged(
            first, [tensors[name] for tensors in self._others], self._merge.row, self._merge.weight
        )

    def _check(self, name: str, first: torch.Tensor, other: torch.Tensor, path: Path) -> None:
        if first.shape == other.shape or _has_more_channels(first, other):
            return
        there, here = list(other.shape), list(first.shape)
        of_first = f"{here} in {self._merge.parts[0].name}"
        raise BadFile(
            f"{path}: its tensor {name} has the shape {there}, not {of_first}; they cannot be merged"
        )


def _merged(
    first: torch.Tensor, others: Sequence[torch.Tensor], method: Method, weight: float
) -> torch.Tensor:
    """One tensor; of one with more input channels than the others have, the first ones."""
    same = first[:, :LATENT_CHANNELS] if any(other.shape != first.shape for other in others) else first
    merged: torch.Tensor = method.function([tensor.float() for tensor in (same, *others)], weight)
    return merged if same is first else torch.cat([merged, first[:, LATENT_CHANNELS:].float()], dim=1)


def _has_more_channels(first: torch.Tensor, other: torch.Tensor) -> bool:
    if first.dim() < 2 or first.dim() != other.dim():
        return False
    channels = first.shape[1] in WIDER and other.shape[1] == LATENT_CHANNELS
    return channels and first[:, :LATENT_CHANNELS].shape == other.shape


def _is_merged(name: str) -> bool:
    return MERGED in name and not name.endswith(NOT_MERGED)


def _found_by(first: Tensors, tensors: Tensors) -> Tensors:
    """Tensors by the names that the first checkpoint has for them."""
    found = dict(tensors)
    for name in first:
        if name not in found and (other := _other_name(name)) in tensors:
            found[name] = tensors[other]
    return found


def _other_name(name: str) -> str:
    if name.startswith(_LATER):
        return _EARLY + name.removeprefix(_LATER)
    return _LATER + name.removeprefix(_EARLY) if name.startswith(_EARLY) else name
