"""The command `farm`: the only place that prints or exits."""

import os
import sys
from collections.abc import Callable

import typer

from farm import __version__
from farm.cli import init, listing, merge, models, plan, prompt, run
from farm.errors import BadInput, FarmError
from farm.interrupts import STATUS

app = typer.Typer(
    name="farm",
    help="Render sweeps of Stable Diffusion settings: one YAML file in; sheets, an index and a page out.",
    epilog="Exit status: 0 all is well, 1 something failed, 2 bad input, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "run": (run.run, "Render jobs, or what is missing of them."),
    "plan": (plan.plan, "Show what a job comes to, and how long it takes."),
    "check": (plan.check, "Look for mistakes in job files."),
    "prompt": (prompt.prompt, "Show what a prompt means, step by step."),
    "merge": (merge.merge, "Merge checkpoints into one; bake LoRA and VAEs in."),
    "schema": (listing.schema, "Print the JSON Schema of job files."),
    "samplers": (listing.samplers, "List the samplers that jobs can name."),
    "schedules": (listing.schedules, "List the schedules that jobs can name."),
    "init": (init.init, "Make a folder to work in."),
}
"""In the order of the help, which has these words; each one's own help says more."""

for _name, (_command, _summary) in _COMMANDS.items():
    app.command(_name, short_help=_summary)(_command)
app.add_typer(models.app, name="models", short_help="List the models that jobs can name; make pickles safe.")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"farm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Runs the command; turns errors into lines on stderr and exit codes."""
    try:
        app()
    except SystemExit as end:
        if end.code == STATUS:  # threads that still compute would abort the process as it ends
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(STATUS)
        raise
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except FarmError as error:
        print(f"farm: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"farm: {error.filename or 'the operating system'}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
