"""The YAML beside a checkpoint: what Stability's code would be configured with, and shapes do not tell."""

from dataclasses import dataclass
from pathlib import Path

from farm.document import Mistakes, Table, Text, Written, read_table, read_text
from farm.errors import BadInput
from farm.weights.contents import BadFile

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}
"""What YAML calls `parameterization`, in the words of diffusers."""


@dataclass(frozen=True, slots=True)
class OriginalConfig:
    """What it says; None where it says nothing.

    Attributes:
        prediction_type: of the UNet, in the words of diffusers.
        beta_start: the first of the noise schedule.
        beta_end: the last of it.
        timesteps: of training.
        scale_factor: of latents.
        heads: of each attention of the UNet.
        head_channels: instead: channels of each head.
    """

    prediction_type: str | None = None
    beta_start: float | None = None
    beta_end: float | None = None
    timesteps: int | None = None
    scale_factor: float | None = None
    heads: int | None = None
    head_channels: int | None = None


def config_beside(checkpoint: Path) -> Path:
    """Where the YAML of a checkpoint lies, if it has one: beside it, with the same stem, as in A1111."""
    return checkpoint.with_suffix(".yaml")


def read_original_config(checkpoint: Path) -> OriginalConfig:
    """The YAML beside a checkpoint; nothing if there is none.

    Raises:
        BadFile: it cannot be read, or says what cannot be.
    """
    path = config_beside(checkpoint)
    if not path.is_file():
        return OriginalConfig()
    try:
        mistakes = Mistakes()
        tree = read_table(read_text(path), path, mistakes)
        mistakes.raise_any()
    except BadInput as error:
        raise BadFile(str(error.problems[0])) from error
    model = _table(_table(tree, "model"), "params")
    unet = _table(_table(model, "unet_config"), "params")
    prediction = _text(model, "parameterization")
    if prediction is not None and prediction not in PREDICTIONS:
        raise BadFile(
            f"{path}: parameterization {prediction} is not supported; {' and '.join(PREDICTIONS)} are"
        )
    head_channels = _count(path, unet, "num_head_channels")
    return OriginalConfig(
        prediction_type=None if prediction is None else PREDICTIONS[prediction],
        beta_start=_number(path, model, "linear_start"),
        beta_end=_number(path, model, "linear_end"),
        timesteps=_count(path, model, "timesteps"),
        scale_factor=_number(path, model, "scale_factor"),
        heads=_count(path, unet, "num_heads") if head_channels is None else None,
        head_channels=head_channels,
    )


def _table(table: Table, key: str) -> Table:
    written: Written | None = table.get(Text(key))
    return written if isinstance(written, Table) else Table()


def _text(table: Table, key: str) -> str | None:
    written = table.get(Text(key))
    return str(written) if isinstance(written, Text) and written else None


def _number(path: Path, table: Table, key: str) -> float | None:
    text = _text(table, key)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise BadFile(f"{path}: {key}: {text!r} is not a number above 0")
    return number


def _count(path: Path, table: Table, key: str) -> int | None:
    """-1 stands for nothing there."""
    if _text(table, key) == "-1" or (number := _number(path, table, key)) is None:
        return None
    if number != int(number):
        raise BadFile(f"{path}: {key}: {number} is not a whole number")
    return int(number)
