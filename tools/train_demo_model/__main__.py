"""Command line: `python -m tools.train_demo_model [stage …] --work .train --out models`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from transformers.utils import logging

from .recipe import Recipe, toy_recipe
from .stages import STAGES, TRAINED, Workshop


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tools.train_demo_model", description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[[], *STAGES], help="which stages; without any, all")
    parser.add_argument("--work", type=Path, default=Path(".train"), help="folder for unfinished things")
    parser.add_argument("--out", type=Path, default=Path("models"), help="the models folder")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--toy", action="store_true", help="a few steps of everything, to try it out")
    parser.add_argument(
        "--steps",
        action="append",
        default=[],
        metavar="STAGE=N",
        help="another number of steps for a stage; a running one may be stopped and resumed with fewer",
    )
    return parser.parse_args()


def with_steps(recipe: Recipe, changes: list[str]) -> Recipe:
    """The recipe with other step counts, given as STAGE=N.

    Raises:
        ValueError: A stage that is not trained, or a count that is not a number.
    """
    for change in changes:
        stage, _, count = change.partition("=")
        if stage not in TRAINED or not count.isdigit():
            raise ValueError(f"--steps {change}: expected STAGE=N with one of {', '.join(TRAINED)}")
        recipe = replace(recipe, **{stage: replace(getattr(recipe, stage), steps=int(count))})
    return recipe


def main() -> None:
    """Run the stages that were asked for, in their order."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    recipe = with_steps(toy_recipe() if arguments.toy else Recipe(), arguments.steps)
    shop = Workshop(recipe, arguments.work, arguments.out)
    for name, stage in STAGES.items():
        if name in arguments.stages or not arguments.stages:
            stage(shop)


if __name__ == "__main__":
    main()
