"""The configurations of a checkpoint's networks: they stand in a folder, or follow from a file's header."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from farm.errors import FarmError, described
from farm.merges import Checkpoint, Merge, files_of
from farm.weights.architecture import Architecture, architecture_in
from farm.weights.catalog import PICTURES
from farm.weights.contents import BadFile, read_contents
from farm.weights.diffusers_folder import SCHEDULER_CONFIG, UNET_CONFIG, config_in, pipeline_of
from farm.weights.hashes import stamp
from farm.weights.merge_parts import check_parts
from farm.weights.original_config import config_beside
from farm.weights.original_layout import NotThisLayout
from farm.weights.places import Kind
from farm.weights.recognition import kind_of
from farm.weights.vae_layout import vae_layout_of

TEXT_CONFIGS = ("text_encoder/config.json", "text_encoder_2/config.json")
"""Of a folder of diffusers."""


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Whether it can be used, as far as its small files or its header say.

    Raises:
        FarmError: it cannot; one line that begins with its path.
    """
    if isinstance(checkpoint, Merge):
        check_parts([_single(path) for path in checkpoint.parts], checkpoint.parts)
        return
    path = checkpoint
    if not path.is_dir():
        _read(path)
        return
    try:
        pipeline_of(path)
    except FarmError as error:
        raise FarmError(f"{path}: {error}") from error


def check_file(kind: Kind, path: Path) -> None:
    """Whether a file can be used beside a checkpoint, as far as its header says.

    Args:
        kind: that it is asked as.
        path: of the file.

    Raises:
        FarmError: it cannot; one line that begins with its path.
    """
    if kind is Kind.VAE:
        vae_layout_of(path)
    elif path.suffix.lower() not in PICTURES and (found := kind_of(read_contents(path))) is not kind:
        is_what = found.in_words if found else "something else"
        raise BadFile(f"{path}: it is {is_what}, and not {kind.in_words}")


def scheduler_config_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """How the UNet's numbers are read: as a `scheduler_config.json` says it.

    Raises:
        FarmError: if that cannot be found out.
    """
    path = files_of(checkpoint)[0]
    return config_in(path, SCHEDULER_CONFIG) if path.is_dir() else dict(_read(path).scheduler)


def text_configs_of(path: Path) -> list[dict[str, Any]]:
    """The configurations of the text encoders of a checkpoint, one or two.

    Raises:
        FarmError: if they cannot be found out.
    """
    if not path.is_dir():
        return [dict(encoder.config) for encoder in _read(path).text_encoders]
    there = [name for name in TEXT_CONFIGS if (path / name).is_file()]
    return [config_in(path, name) for name in there]


def skip_connections_of(checkpoint: Checkpoint) -> int:
    """How many skip connections the UNet of a checkpoint has.

    Raises:
        FarmError: if that cannot be found out.
    """
    path = files_of(checkpoint)[0]
    config = config_in(path, UNET_CONFIG) if path.is_dir() else _read(path).unet
    try:
        levels, layers = len(config["down_block_types"]), config["layers_per_block"]
        return levels + (layers * levels if isinstance(layers, int) else sum(layers))
    except (KeyError, TypeError) as error:
        raise FarmError(f"{UNET_CONFIG} does not say what blocks there are: {described(error)}") from error


def _single(path: Path) -> Architecture:
    if path.is_dir():
        raise BadFile(f"{path}: it is a folder of diffusers, and merges are made of single files")
    return _read(path)


def _read(path: Path) -> Architecture:
    beside = config_beside(path)
    try:
        return _remembered(path, stamp(path), stamp(beside) if beside.is_file() else "")
    except OSError as error:
        raise FarmError(f"{path}: cannot be read: {error.strerror or error}") from error


@lru_cache(64)
def _remembered(path: Path, stamp: str, config: str) -> Architecture:
    """The header of a file is read once for as long as nobody writes to it, or to the YAML beside it."""
    contents = read_contents(path)
    kind = kind_of(contents)
    if kind not in (None, Kind.CHECKPOINT):
        raise BadFile(f"{path}: it is {kind.in_words}, and no checkpoint")
    try:
        return architecture_in(contents, path)
    except NotThisLayout as error:
        raise BadFile(f"{path}: {error}") from error
