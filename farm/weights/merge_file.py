"""Merges that are written into a file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from farm.merges import Merge
from farm.weights.architecture import architecture_of
from farm.weights.baking import Addition, LoraUse, additions_of, by_tensor, vae_tensors
from farm.weights.contents import BadFile
from farm.weights.merge_parts import check_parts
from farm.weights.merging import Merging
from farm.weights.original_layout import VAE
from farm.weights.safetensors_stream import write_stream
from farm.weights.tensor_info import TensorInfo
from farm.weights.unfinished import check_absent

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""Of results, by the names that settings have for them."""


def write_merge(
    merge: Merge[Path],
    target: Path,
    precision: str,
    metadata: Mapping[str, str],
    vae: Path | None = None,
    loras: Sequence[LoraUse] = (),
    progress: Callable[[int, int], None] = lambda done, whole: None,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Writes a merge as safetensors, tensor by tensor: all of it or, on any failure, nothing.

    Args:
        merge: of checkpoints in single files.
        target: must not be there yet.
        precision: a name in `DTYPES`.
        metadata: to be written into it.
        vae: that takes the place of the checkpoint's own.
        loras: that are added to it.
        progress: is told how many bytes are written, and of how many.
        note: is told what of the LoRA is left out.

    Raises:
        BadFile: something cannot be read, or does not fit.
        FarmError: the target is there, or cannot be written.
    """
    check_absent(target)
    architectures = [architecture_of(path) for path in merge.parts]
    check_parts(architectures, merge.parts)
    additions = [each for lora in loras for each in additions_of(lora, architectures[0], note)]
    merging = Merging(merge)
    own = {name: merging.shape(name) for name in merging if name.startswith(VAE)}
    other = vae_tensors(vae, own) if vae else {}
    made = _Made(merging, DTYPES[precision], other, by_tensor(additions))
    if missing := sorted(made.added - made.infos.keys()):
        raise BadFile(f"{merge.parts[0]}: it has no tensor {missing[0]}, to which a LoRA would be added")
    write_stream(target, made.infos, made.tensor, metadata, progress)


class _Made:
    """A merge with all that is baked in."""

    def __init__(
        self,
        merging: Merging,
        dtype: torch.dtype,
        vae: Mapping[str, torch.Tensor],
        additions: Mapping[str, Sequence[Addition]],
    ) -> None:
        self._merging, self._dtype, self._vae, self._additions = merging, dtype, vae, additions
        own = [name for name in merging if not (vae and name.startswith(VAE))]
        self.infos = {name: self._info(merging.dtype(name, dtype), merging.shape(name)) for name in own}
        self.infos |= {name: self._info(dtype, tuple(tensor.shape)) for name, tensor in vae.items()}

    @staticmethod
    def _info(dtype: torch.dtype, shape: tuple[int, ...]) -> TensorInfo:
        return TensorInfo(str(dtype).removeprefix("torch."), shape)

    @property
    def added(self) -> set[str]:
        """The names of tensors that something is added to."""
        return set(self._additions)

    def tensor(self, name: str) -> torch.Tensor:
        if name in self._vae:
            return self._vae[name].to(self._dtype)
        tensor = self._merging.tensor(name)
        if name in self._additions:
            tensor = tensor.clone()  # it may be the mapped one
            for addition in self._additions[name]:
                addition.add_to(tensor)
        return tensor.to(self._merging.dtype(name, self._dtype))
