"""`farm run`: renders jobs."""

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.jobs import load_plans, look_around
from farm.cli.oddities import counted_warnings, prompt_warnings
from farm.cli.options import JobFiles, Models, Overrides, Precision, order_of, overridden
from farm.errors import BadInput, Problem
from farm.ordering import Order
from farm.weights.addons import addon_names

Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Join this Ray cluster (also: the variable RAY_ADDRESS); else one is started here.",
        show_default=False,
    ),
]

Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Workers to start; one on each GPU, or else on each CPU core, if not given.",
        show_default=False,
    ),
]

Compiled = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the UNet for full batches: some minutes once for each checkpoint's shapes, kept on "
        "disk; pays on long runs.",
    ),
]

Profiled = Annotated[
    bool,
    typer.Option(
        "--profile",
        help="Say where the time goes, and write a Chrome trace of some batches beside the results.",
    ),
]

OrderOfCells = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="fast: the whole job soonest; coarse: every fourth value of each axis first, then every "
        "second, then the others.",
    ),
]


def run(
    jobs: JobFiles,
    overrides: Overrides = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where results go; ./results if not given.", show_default=False),
    ] = None,
    precision: Precision = None,
    models: Models = None,
    inline: Annotated[bool, typer.Option("--inline", help="Render in this process, without Ray.")] = False,
    address: Address = None,
    workers: Workers = None,
    compiled: Compiled = False,
    profiled: Profiled = False,
    order: OrderOfCells = Order.FAST,
) -> None:
    """Render jobs; what is there already is kept, and the same command goes on where it stopped."""
    if inline and (address or workers):
        option = "--address" if address else "--workers"
        raise BadInput([Problem(option, "goes with Ray; --inline renders in this process alone")])
    place = look_around(results, models)
    chosen = order_of(order)
    plans = [plan.in_order(chosen) for plan in load_plans(jobs, overridden(overrides, precision), place)]
    addons = addon_names(place.catalog)
    for plan in plans:
        others = prompt_warnings(replace(plan, failing=()), addons)
        for line in (*plan.failing, *(f"{plan.name}: {line}" for line in counted_warnings(others))):
            print(line, file=sys.stderr)
    # Here, since `farm --help` and `farm plan` must not wait for what rendering loads.
    failed = import_module("farm.cli.rendering").render_jobs(
        plans, place, inline, address, workers, {"compiled": compiled, "profiled": profiled}
    )
    raise typer.Exit(1 if failed else 0)
