"""Options that several commands have, and what they mean."""

from pathlib import Path
from typing import Annotated

import typer

from farm.cli.jobs import option_value
from farm.errors import BadInput, Problem, quoted
from farm.ordering import Order

JobFiles = Annotated[list[Path], typer.Argument(metavar="JOB", help="Job files (YAML).", show_default=False)]

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Override a setting or an axis of the job, e.g. steps=20."
    ),
]

Models = Annotated[
    list[Path] | None,
    typer.Option(
        "--models",
        metavar="DIR",
        envvar="FARM_MODELS",
        show_envvar=False,
        help="Use the models of this folder, too: one laid out as models/, or a folder of A1111, Forge or "
        "ComfyUI. Can be given several times (also: the variable FARM_MODELS).",
        show_default=False,
    ),
]

Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of the networks: bf16, fp16, fp32 or auto, as --set precision=NAME.",
        show_default=False,
    ),
]


def overridden(overrides: list[str] | None, precision: str | None) -> list[str]:
    """What a command changes of its jobs; of several changes of a setting the last counts.

    Args:
        overrides: of `--set`.
        precision: of `--precision`.

    Raises:
        BadInput: there is no precision of that name.
    """
    asked = [] if precision is None else [f"precision={option_value('precision', precision, '--precision')}"]
    return [*(overrides or []), *asked]


def order_of(name: str) -> Order:
    """What `--order` says.

    Raises:
        BadInput: there is no order of that name.
    """
    try:
        return Order(name.strip().casefold())
    except ValueError as error:
        allowed = " or ".join(Order)
        raise BadInput([Problem("--order", f"{quoted(name)} is not known ({allowed})")]) from error
