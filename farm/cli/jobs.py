"""From job files to plans, with what lies in the workspace."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.costs import schedule_of
from farm.errors import BadInput, CellFailed, FarmError, Problem
from farm.job import Job, Vocabulary, load_job, read_drawn
from farm.plan import Plan, compile_job
from farm.plugins import find_plugins
from farm.render.noise_levels import ends_for, log_sigmas_of, sigma_range
from farm.scheduler_names import chosen, is_scheduler
from farm.weights.catalog import Checkpoint, Hashes, find_checkpoints, scheduler_config_of
from farm.workspace import Workspace

NEEDED_FOR_ZERO_SNR = "rescale_betas_zero_snr"
"""What diffusers' schedulers call it, of those that have it."""


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
    vocabulary = Vocabulary(models=models, plugins=find_plugins(workspace.plugin_folders))
    return Place(workspace, results or workspace.results, checkpoints, hashes, vocabulary)


def load_plans(paths: Sequence[Path], overrides: Sequence[str], place: Place) -> list[Plan]:
    """Compiles every job, or raises all the mistakes of all of them.

    Random seeds that a job drew before are read back from its results.

    Raises:
        BadInput: with every mistake in every file.
    """
    plans: dict[str, Plan] = {}
    problems: list[Problem] = []
    for path in paths:
        try:
            plan = compile_job(_load(path, overrides, place))
        except BadInput as error:
            problems.extend(error.problems)
            continue
        problems += _broken_models(plan, path, place) or [
            *_misfits(plan, path, place),
            *_out_of_range(plan, path, place),
        ]
        if plan.name in plans:
            problems.append(Problem(str(path), f"another job of this command is called {plan.name!r} too"))
        plans[plan.name] = plan
    if problems:
        raise BadInput(problems)
    return list(plans.values())


def _broken_models(plan: Plan, path: Path, place: Place) -> list[Problem]:
    named = {cell.settings.model: place.checkpoints[cell.settings.model] for cell in plan.cells}
    return [
        Problem(
            _place(plan, path, "model"),
            f"model: {name!r} cannot be used; {checkpoint.path}: {checkpoint.fault}",
        )
        for name, checkpoint in named.items()
        if checkpoint.fault
    ]


def _misfits(plan: Plan, path: Path, place: Place) -> Iterator[Problem]:
    """Schedulers of diffusers that expect another network than the checkpoint has."""
    asked = dict.fromkeys(
        (settings.sampler, settings.model, bool(settings.zero_terminal_snr))
        for settings in (cell.settings for cell in plan.cells)
        if is_scheduler(settings.sampler)
    )
    for sampler, model, zero_terminal_snr in asked:
        named = chosen(sampler)
        try:
            config = scheduler_config_of(place.checkpoints[model].path)
        except FarmError as error:
            yield Problem(_place(plan, path, "model"), f"model: {model!r} cannot be used; {error}")
            continue
        if misfit := named.misfit(config):
            what = f"sampler: {sampler} cannot serve {model!r}: {misfit}"
            yield Problem(_place(plan, path, "sampler"), what)
        elif zero_terminal_snr and NEEDED_FOR_ZERO_SNR not in named.scheduler.options:
            what = f"zero_terminal_snr: {sampler} cannot have it; it takes no {NEEDED_FOR_ZERO_SNR}"
            yield Problem(_place(plan, path, "zero_terminal_snr"), what)


def _out_of_range(plan: Plan, path: Path, place: Place) -> Iterator[Problem]:
    """Sigmas that leave nothing of the noise levels that a checkpoint was trained at."""
    limited = {
        (settings.model, settings.sampler, settings.schedule, settings.zero_terminal_snr, *limits): settings
        for cell in plan.cells
        if (limits := ((settings := cell.settings).sigma_min, settings.sigma_max)) != (None, None)
    }
    told: set[str] = set()
    for settings in limited.values():
        row = plan.samplers[settings.sampler]
        schedule = schedule_of(row, settings.schedule, plan.samplers)
        config = scheduler_config_of(place.checkpoints[settings.model].path)
        ends = ends_for(row, log_sigmas_of(config, settings.zero_terminal_snr))
        try:
            sigma_range(settings, schedule, *ends)
        except CellFailed as error:
            if (what := str(error)) not in told:
                told.add(what)
                yield Problem(_place(plan, path, what.split()[0]), what)


def _place(plan: Plan, path: Path, setting: str) -> str:
    return str(plan.places.get(setting, path))


def _load(path: Path, overrides: Sequence[str], place: Place) -> Job:
    """The seeds of before go in even if nothing is random this time, so that this run hands them on."""
    job = load_job(path, place.vocabulary, overrides)
    drawn = read_drawn(place.results / job.name / "job.yaml")
    return load_job(path, place.vocabulary, overrides, drawn) if drawn else job


def _other_names(checkpoint: Checkpoint, hashes: Hashes) -> tuple[str, ...]:
    stem = checkpoint.path.name
    known = hashes.known(checkpoint.path)
    return tuple(name for name in (stem, known[:10]) if name and name != checkpoint.name)
