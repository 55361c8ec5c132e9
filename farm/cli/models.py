"""`farm models`: what lies in the folders of models, and making a pickle safe."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.cli.hashing import telling
from farm.cli.jobs import look_around
from farm.cli.listing import AsJson, print_rows
from farm.cli.options import Models
from farm.weights.catalog import SHORT_HASH, Entry
from farm.weights.facts import Facts
from farm.weights.hashes import Hashes
from farm.weights.looking import Looking
from farm.weights.places import Kind

app = typer.Typer(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

Hashed = Annotated[
    bool, typer.Option("--hash", help="Read files whose hash is not known yet, which takes its time.")
]

SHOWN = {
    "name": "name", "kind": "kind", "form": "form", "family": "family", "size": "size", "hash": "hash",
    "trigger_words": "trigger words", "base_model": "trained on", "fault": "cannot be used, since",
}  # fmt: skip
"""Keys of JSON, and titles of the table's columns; those that nothing stands in are left out."""


@app.callback()
def every(
    context: typer.Context, as_json: AsJson = False, hashed: Hashed = False, models: Models = None
) -> None:
    """List the models that jobs can name, of all kinds or of one.

    What a file is is told from its header. The hash is the one that A1111 shows; it is known once a model was
    used, or with --hash.
    """
    if context.invoked_subcommand is None:
        _list(list(Kind), as_json, hashed, models)
    # options may stand before a kind, too
    context.obj = {"as_json": as_json, "hashed": hashed, "models": models}


def _command(kind: Kind) -> Callable[..., None]:
    def listed(
        context: typer.Context, as_json: AsJson = False, hashed: Hashed = False, models: Models = None
    ) -> None:
        before = context.obj
        _list([kind], as_json or before["as_json"], hashed or before["hashed"], models or before["models"])

    return listed


for _kind in Kind:
    app.command(str(_kind), help=f"List those of the kind {_kind}.")(_command(_kind))


@app.command()
def convert(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .ckpt, .pt or .bin file.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to; beside it if not given.", show_default=False),
    ] = None,
) -> None:
    """Rewrite the pickle of a checkpoint, a VAE or a LoRA as safetensors.

    Nothing in it is run; what is not allowed is refused by its name.
    """
    target = output or file.with_suffix(".safetensors")
    # Here, since listing must not wait for what loads weights.
    import_module("farm.weights.reading").convert(file, target)
    print(target)


def _list(kinds: Sequence[Kind], as_json: bool, hashed: bool, models: Sequence[Path] | None) -> None:
    place = look_around(None, models)
    looking = Looking()
    entries = [entry for kind in kinds for entry in place.catalog.of(kind).values()]
    rows = [_row(entry, looking.at(entry), place.hashes, hashed) for entry in entries]
    looking.remember()
    shown = {key: title for key, title in SHOWN.items() if any(row[key] for row in rows)}
    print_rows(rows, shown, as_json)
    if not rows:
        folders = ", ".join(map(str, place.workspace.model_folders))
        print(f"there are none in {folders}", file=sys.stderr)


def _row(entry: Entry, facts: Facts, hashes: Hashes, hashed: bool) -> dict[str, Any]:
    content = (telling(hashes) if hashed else hashes.known)(entry.path)
    return {
        "name": entry.name,
        "kind": str(facts.kind or entry.kind),
        "form": facts.form if facts.form != facts.kind else "",
        "family": facts.family,
        "size": _size(entry.size),
        "bytes": entry.size,
        "hash": facts.said_hash or content[:SHORT_HASH],
        "sha256": content,
        "trigger_words": list(facts.trigger_words),
        "base_model": facts.base_model,
        "fault": facts.fault or _misplaced(entry, facts),
        "path": str(entry.path),
    }


def _misplaced(entry: Entry, facts: Facts) -> str:
    if facts.kind in (None, entry.kind):
        return ""
    return f"it lies among files of the kind {entry.kind}"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
