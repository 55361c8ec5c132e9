"""Checkpoints become networks, whatever they come as."""

import torch

from farm.errors import CellFailed, described
from farm.merges import Checkpoint, Merge, files_of
from farm.weights.checkpoint import Networks, load_folder, quiet
from farm.weights.contents import BadFile
from farm.weights.device_errors import is_out_of_memory
from farm.weights.single_file import load_merge, load_single_file


def load_checkpoint(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Networks:
    """Loads a diffusers folder or a single file, or makes a merge. Nothing is fetched from anywhere.

    Raises:
        CellFailed: it is no checkpoint of Stable Diffusion that is supported, or cannot be read.
    """
    path = files_of(checkpoint)[0]
    if not isinstance(checkpoint, Merge) and path.is_dir():
        return load_folder(path, device, dtype)
    try:
        with quiet():
            if isinstance(checkpoint, Merge):
                return load_merge(checkpoint, device, dtype)
            return load_single_file(path, device, dtype)
    except BadFile as error:
        raise CellFailed(f"checkpoint {error}") from error
    except Exception as error:  # whatever the libraries raise about files that are foreign
        if is_out_of_memory(error):
            raise
        raise CellFailed(f"checkpoint {path} cannot be loaded: {described(error)}") from error
