"""`farm init`: a folder to work in."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from farm.errors import BadInput, Problem
from farm.workspace import shipped

FOLDERS = {
    "models/Stable-diffusion": "Checkpoints: .safetensors or .ckpt files, or diffusers folders.\n",
    "plugins": "Your own plugins: every *.py file here is one, named as the file.\n",
    "results": "What jobs leave here: a folder each, with pictures, index.csv, sheets and index.html.\n",
}


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.", show_default=False)],
) -> None:
    """Make a folder to work in: models/, plugins/, results/, example jobs and a cluster file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput([Problem(str(folder), "is there already and not empty; name a new folder")])
    shutil.copytree(shipped() / "jobs", folder / "jobs", dirs_exist_ok=True)
    shutil.copyfile(shipped() / "cluster.yaml", folder / "cluster.yaml")
    for name, note in FOLDERS.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "README.txt").write_text(note, encoding="utf-8")
    print(f"{folder} is ready. There: farm run {Path('jobs') / 'demo.yaml'}")
