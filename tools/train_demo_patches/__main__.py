"""Command line: `python -m tools.train_demo_patches [patch …] --work .train --models models`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .patches import PATCHES, Workshop
from .recipe import Recipe, toy_recipe


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tools.train_demo_patches", description=__doc__)
    parser.add_argument("patches", nargs="*", choices=[[], *PATCHES], help="which ones; without any, all")
    parser.add_argument("--work", type=Path, default=Path(".train"), help="folder for unfinished things")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the folder with tiny-cats")
    parser.add_argument("--out", type=Path, help="where to write; the folder of --models if not given")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--toy", action="store_true", help="a few steps of everything, to try it out")
    return parser.parse_args()


def main() -> None:
    """Train what was asked for."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    recipe = toy_recipe() if arguments.toy else Recipe()
    shop = Workshop(recipe, arguments.work, arguments.models, arguments.out or arguments.models)
    for name, patch in PATCHES.items():
        if name in arguments.patches or not arguments.patches:
            print(patch(shop))  # noqa: T201  # what a command says


if __name__ == "__main__":
    main()
