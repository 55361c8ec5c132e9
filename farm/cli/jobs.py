"""From job files to plans, with what lies in the workspace."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.axes import BadValue
from farm.cli.misfits import misfits
from farm.document import Mistakes
from farm.errors import BadInput, Problem
from farm.job import Job, Vocabulary, load_job, read_drawn
from farm.kinds import Names, Reading, Seeds
from farm.plan import Plan, compile_job
from farm.plugins import find_plugins
from farm.settings import SETTINGS
from farm.weights.catalog import Checkpoint, Hashes, find_checkpoints
from farm.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Place:
    """What jobs are read against.

    Attributes:
        workspace: the folder the command is run in.
        results: where jobs leave their results.
        checkpoints: by name.
        hashes: of the checkpoints.
        vocabulary: the names that jobs may use.
    """

    workspace: Workspace
    results: Path
    checkpoints: dict[str, Checkpoint]
    hashes: Hashes
    vocabulary: Vocabulary


def look_around(results: Path | None) -> Place:
    """What lies in the current folder and what is shipped."""
    workspace = Workspace(Path.cwd())
    checkpoints = find_checkpoints(workspace.model_folders)
    hashes = Hashes()
    models = {name: _other_names(checkpoint, hashes) for name, checkpoint in checkpoints.items()}
    plugins = find_plugins(workspace.plugin_folders)
    vocabulary = Vocabulary(models=models, plugins=plugins, root=workspace.root)
    return Place(workspace, results or workspace.results, checkpoints, hashes, vocabulary)


def load_plans(paths: Sequence[Path], overrides: Sequence[str], place: Place) -> list[Plan]:
    """Compiles every job, or raises all the mistakes of all of them.

    Random seeds that a job drew before are read back from its results.

    Raises:
        BadInput: with every mistake in every file.
    """
    plans, problems = read_plans(paths, overrides, place)
    if problems:
        raise BadInput(problems)
    return plans


def read_plans(
    paths: Sequence[Path], overrides: Sequence[str], place: Place
) -> tuple[list[Plan], list[Problem]]:
    """As `load_plans`: the jobs without mistakes, and the mistakes of the others."""
    plans: list[Plan] = []
    names: set[str] = set()
    problems: list[Problem] = []
    for path in paths:
        try:
            plan = compile_job(_load(path, overrides, place))
        except BadInput as error:
            problems.extend(error.problems)
            continue
        mistakes = misfits(plan, path, place.checkpoints)
        if plan.name in names:
            mistakes.append(Problem(str(path), f"another job of this command is called {plan.name!r} too"))
        names.add(plan.name)
        plans += [] if mistakes else [plan]
        problems += mistakes
    return plans, problems


def _load(path: Path, overrides: Sequence[str], place: Place) -> Job:
    """The seeds of before go in even if nothing is random this time, so that this run hands them on."""
    job = load_job(path, place.vocabulary, overrides)
    drawn = read_drawn(place.results / job.name / "job.yaml")
    return load_job(path, place.vocabulary, overrides, drawn) if drawn else job


def find_checkpoint(name: str, option: str) -> Checkpoint:
    """The checkpoint that a name, a file stem or a hash means.

    Args:
        name: as jobs write it.
        option: where it was given, for messages.

    Raises:
        BadInput: if there is none, or several.
    """
    place = look_around(None)
    return place.checkpoints[option_value("model", name, option, place.vocabulary.models)]


def option_value(setting: str, text: str, option: str, models: Names | None = None) -> str:
    """What an option of a command means that is written as a setting of a job is.

    Raises:
        BadInput: if it is not allowed.
    """
    reading = Reading(models or {}, Seeds(), Mistakes())
    try:
        [(_, found), *_] = SETTINGS[setting].expand([text], 0, reading)
    except BadValue as mistake:
        raise BadInput([Problem(option, str(mistake))]) from mistake
    return str(found)


def _other_names(checkpoint: Checkpoint, hashes: Hashes) -> tuple[str, ...]:
    stem = checkpoint.path.name
    known = hashes.known(checkpoint.path)
    return tuple(name for name in (stem, known[:10]) if name and name != checkpoint.name)
