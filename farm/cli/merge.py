"""`farm merge`: checkpoints become one, in a file."""

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.axes import BadValue
from farm.cli.jobs import Place, look_around, option_value
from farm.cli.options import Models
from farm.errors import BadInput, Problem, quoted
from farm.merges import USUAL_WEIGHT, Merge, method_for, name_of, weight_in
from farm.prompts.emphasis import number_of
from farm.weights.catalog import Entry
from farm.weights.configs import check_checkpoint, check_file
from farm.weights.contents import read_contents
from farm.weights.original_config import config_beside
from farm.weights.places import Kind
from farm.weights.unfinished import check_absent

SUFFIX = ".safetensors"
PRECISIONS = ("fp16", "bf16", "fp32")

SILENT = 5.0
"""Seconds before anything is said of how far it is, and then between one line and the next."""

Names = Annotated[
    list[str], typer.Argument(metavar="A [B [C]]", help="Checkpoints, as jobs name them.", show_default=False)
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="Where to; a new .safetensors.", show_default=False),
]
MethodName = Annotated[
    str,
    typer.Option(
        "--method", metavar="NAME",
        help="weighted sum: (1 - weight) A + weight B, the usual one for two; add difference: A + weight "
        "(B - C), the usual one for three.", show_default=False,
    ),
]  # fmt: skip
Weight = Annotated[str, typer.Option("--weight", metavar="NUMBER", help="From 0 to 1.")]
Vae = Annotated[
    str, typer.Option("--vae", metavar="NAME", help="A VAE in place of A's own.", show_default=False)
]
Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora", metavar="NAME:WEIGHT",
        help="A LoRA to be added, also as NAME:TEXT:UNET; can be given several times.", show_default=False,
    ),
]  # fmt: skip
Precision = Annotated[str, typer.Option("--precision", metavar="NAME", help="Of the file: fp16, bf16, fp32.")]


def merge(
    names: Names,
    output: Output,
    method: MethodName = "",
    weight: Weight = str(USUAL_WEIGHT),
    vae: Vae = "",
    loras: Loras = None,
    precision: Precision = "fp16",
    models: Models = None,
) -> None:
    """Merge two or three checkpoints into a file, or bake LoRA or a VAE into one.

    As A1111's checkpoint merger: what B lacks stays as in A, and a checkpoint for inpainting stands first.
    Tensors are made one after the other, so that little memory is needed. What it was made of is written into
    the file.
    """
    place = look_around(None, models)
    asked = _asked(names, method, weight)
    if precision not in PRECISIONS:
        raise BadInput(
            [Problem("--precision", f"{quoted(precision)} is not known ({', '.join(PRECISIONS)})")]
        )
    if output.suffix.lower() != SUFFIX:
        raise BadInput([Problem("--output", f"{quoted(str(output))} does not end in {SUFFIX}")])
    entries = [_found("model", Kind.CHECKPOINT, name, "A B C", place) for name in asked.parts]
    made = Merge(tuple(entry.path for entry in entries), asked.method, asked.weight)
    baked = [_lora(text, place) for text in loras or ()]
    other_vae = _found("vae", Kind.VAE, vae, "--vae", place) if vae else None
    if len(entries) == 1 and not (baked or other_vae):
        raise BadInput(
            [Problem("A B C", "one checkpoint alone is merged with nothing; --lora or --vae would")]
        )
    _check(made, other_vae, [entry for entry, *_ in baked])
    config, target_config = config_beside(made.parts[0]), config_beside(output)
    check_absent(output)
    if config.is_file():
        check_absent(target_config)
    # Here, since listing and checking must not wait for what loads weights.
    writing, baking = import_module("farm.weights.merge_file"), import_module("farm.weights.baking")
    metadata = _metadata(asked, entries, precision, other_vae, baked, place)
    uses = [baking.LoraUse(entry.path, *weights) for entry, *weights in baked]
    path = other_vae.path if other_vae else None
    writing.write_merge(made, output, precision, metadata, path, uses, _Progress(output.name), _say)
    if config.is_file():
        shutil.copyfile(config, target_config)
    print(output)


def _asked(names: Sequence[str], method: str, weight: str) -> Merge[str]:
    try:
        row = method_for(method, len(names))
    except BadValue as mistake:
        raise BadInput([Problem("--method" if method else "A B C", str(mistake))]) from mistake
    try:
        return Merge(tuple(names), row.name, weight_in(weight))
    except BadValue as mistake:
        raise BadInput([Problem("--weight", str(mistake))]) from mistake


def _found(setting: str, kind: Kind, name: str, option: str, place: Place) -> Entry:
    """The file that a name means."""
    vocabulary = place.vocabulary
    found = option_value(setting, name, option, vocabulary.models, vocabulary.files)
    entry = place.catalog.of(kind).get(found)
    if entry is None:
        what = (
            "is a merge; a merge is made of files" if kind is Kind.CHECKPOINT else f"is not {kind.in_words}"
        )
        raise BadInput([Problem(option, f"{quoted(found)} {what}")])
    return entry


def _lora(text: str, place: Place) -> tuple[Entry, float, float]:
    """What ``name``, ``name:weight`` and ``name:text:unet`` mean."""
    name, weights = text, list[float]()
    while len(weights) < 2 and ":" in name and (number := number_of(name.rpartition(":")[2])) is not None:
        weights.insert(0, number)
        name = name.rpartition(":")[0]
    weights = weights or [1.0]
    return _found("lora", Kind.LORA, name, "--lora", place), weights[0], weights[-1]


def _check(made: Merge[Path], vae: Entry | None, loras: Sequence[Entry]) -> None:
    """Finds mistakes before libraries are waited for."""
    check_checkpoint(made)
    for entry in (*loras, *((vae,) if vae else ())):
        check_file(entry.kind, entry.path)


def _metadata(
    asked: Merge[str],
    entries: Sequence[Entry],
    precision: str,
    vae: Entry | None,
    loras: Sequence[tuple[Entry, float, float]],
    place: Place,
) -> dict[str, str]:
    """What the file is made of, by the keys that A1111 writes."""
    contents = [place.hashes.of(entry.path) for entry in entries]
    ranks = ("primary", "secondary", "tertiary")
    recipe: dict[str, Any] = {"type": "farm"}
    recipe |= {f"{rank}_model_hash": None for rank in ranks}
    recipe |= {f"{rank}_model_hash": content for rank, content in zip(ranks, contents)}
    recipe |= {
        "interp_method": asked.method.capitalize(),
        "multiplier": asked.weight,
        "save_as_half": precision == "fp16",
        "precision": precision,
        "bake_in_vae": vae.path.name if vae else "None",
        "loras": [
            {"name": entry.name, "hash": place.hashes.of(entry.path), "text": text, "unet": unet}
            for entry, text, unet in loras
        ],
    }
    models: dict[str, Any] = {}
    for entry, content in zip(entries, contents):
        said = {key: _json(value) for key, value in read_contents(entry.path).metadata.items()}
        models |= said.get("sd_merge_models") or {}
        models[content] = {
            "name": entry.file_name, "legacy_hash": None, "sd_merge_recipe": said.get("sd_merge_recipe")
        }  # fmt: skip
    names = Merge(tuple(entry.name for entry in entries), asked.method, asked.weight)
    texts = {"sd_merge_recipe": recipe, "sd_merge_models": models}
    return {"format": "pt", "merge": name_of(names)} | {key: json.dumps(one) for key, one in texts.items()}


def _json(text: str) -> Mapping[str, Any] | None:
    """What a file says of what it is made of; None if that is not what it should be."""
    with suppress(ValueError, RecursionError):
        said = json.loads(text)
        return said if isinstance(said, dict) else None
    return None


class _Progress:
    """Says on stderr how far it is, if it takes long."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said = time.monotonic()

    def __call__(self, done: int, whole: int) -> None:
        if time.monotonic() - self._said > SILENT and done < whole:
            self._said = time.monotonic()
            _say(f"{self._name}: {done / 1e9:.1f} of {whole / 1e9:.1f} GB")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
