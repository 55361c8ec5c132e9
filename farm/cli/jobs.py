"""From job files to plans, with what lies in the workspace."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farm.axes import BadValue
from farm.cell import CONFIG, FileUse, Settings, UsedFile
from farm.cli.misfits import misfits
from farm.cli.unusable import without_unusable
from farm.document import Mistakes
from farm.errors import BadInput, Problem, quoted
from farm.job import Job, Vocabulary, load_job, read_drawn
from farm.kinds import Names, Reading, Seeds
from farm.merges import Checkpoint, Merge, content_of, files_of, merge_of
from farm.plan import Plan, compile_job
from farm.plugins import find_plugins
from farm.settings import SETTINGS
from farm.weights.catalog import Catalog, Entry, find_models, other_names
from farm.weights.hashes import Hashes
from farm.weights.named import Named, by_content
from farm.weights.original_config import config_beside
from farm.weights.places import Kind
from farm.workspace import Workspace

IN_PROMPTS = (Kind.LORA, Kind.HYPERNETWORK, Kind.EMBEDDING)
"""What is named in prompts, as other programs do it: without folders."""

USED_BESIDE = (Kind.VAE, *IN_PROMPTS)
"""What jobs can name beside checkpoints."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """SHA-256 of files in hex, empty for those that nobody has hashed yet.

    Attributes:
        models: of checkpoints, by name.
        files: of others.
        named: finds these.
    """

    models: Mapping[str, str]
    files: Mapping[FileUse, str]
    named: Named

    @property
    def is_complete(self) -> bool:
        """Whether all are known."""
        return all((*self.models.values(), *self.files.values()))

    def keyed(self, plan: Plan) -> Plan:
        """The plan with final keys."""
        return plan.keyed(self.models, self._files_of, self._counted)

    def _counted(self, settings: Settings) -> Settings:
        """With the contents of LoRA and hypernetworks in the place of their names."""
        return replace(settings, prompt=by_content(settings.prompt, self.files))

    def _files_of(self, settings: Settings) -> tuple[UsedFile, ...]:
        uses = sorted(self.named.uses(settings))
        beside = (CONFIG, settings.model)
        if beside in self.files:
            uses.append(beside)
        return tuple(UsedFile(*use, self.files[use]) for use in uses)


@dataclass(frozen=True, slots=True)
class Place:
    """What jobs are read against.

    Attributes:
        workspace: the folder the command is run in.
        results: where jobs leave their results.
        catalog: of the models.
        hashes: of their contents.
        vocabulary: the names that jobs may use.
        named: finds the files beside checkpoints that pictures are made with.
    """

    workspace: Workspace
    results: Path
    catalog: Catalog
    hashes: Hashes
    vocabulary: Vocabulary
    named: Named

    @property
    def checkpoints(self) -> Mapping[str, Entry]:
        """By name."""
        return self.catalog.of(Kind.CHECKPOINT)

    def where(self, names: Iterable[str]) -> dict[str, Checkpoint]:
        """Where the weights of checkpoints are."""
        return {name: self.catalog.checkpoint(name) for name in dict.fromkeys(names)}

    def file_paths(self, plans: Iterable[Plan]) -> dict[FileUse, Path]:
        """Of other files that pictures of plans are made with."""
        pictures = {settings for plan in plans for settings in plan.pictures()}
        uses = {use: entry for settings in pictures for use, entry in self.named.uses(settings).items()}
        return {use: entry.path for use, entry in sorted(uses.items())}

    def hashed(self, plans: Sequence[Plan], hash_of: Callable[[Path], str]) -> Hashed:
        """What is in the checkpoints of plans, and in all other files that their pictures are made with."""
        models = self.where(model for plan in plans for model in plan.models())
        beside = {(CONFIG, name): config_beside(files_of(one)[0]) for name, one in models.items()}
        files = {use: path for use, path in beside.items() if path.is_file()} | self.file_paths(plans)
        return Hashed(
            {name: _content(one, hash_of) for name, one in models.items()},
            {use: hash_of(path) for use, path in files.items()},
            self.named,
        )


def _content(checkpoint: Checkpoint, hash_of: Callable[[Path], str]) -> str:
    contents = [hash_of(path) for path in files_of(checkpoint)]
    return content_of(checkpoint, contents) if isinstance(checkpoint, Merge) else contents[0]


def look_around(results: Path | None, models: Sequence[Path] | None = None) -> Place:
    """What lies in the current folder, in others of models, and what is shipped.

    Args:
        results: where results go; by default into the current folder.
        models: more folders of models, in which names are looked up before the shipped ones.

    Raises:
        BadInput: one of them is not there.
    """
    missing = [path for path in models or () if not path.is_dir()]
    if missing:
        raise BadInput([Problem("--models", f"{quoted(str(path))} is not a folder") for path in missing])
    workspace = Workspace(Path.cwd(), tuple(models or ()))
    catalog, hashes = find_models(workspace.model_folders), Hashes()
    names = {kind: _names(catalog, kind, hashes) for kind in (Kind.CHECKPOINT, *USED_BESIDE)}
    vocabulary = Vocabulary(
        models=names.pop(Kind.CHECKPOINT),
        plugins=find_plugins(workspace.plugin_folders),
        root=workspace.root,
        files={str(kind): known for kind, known in names.items()},
        vaes_beside=catalog.vaes_beside(),
    )
    return Place(workspace, results or workspace.results, catalog, hashes, vocabulary, Named(catalog))


def _names(catalog: Catalog, kind: Kind, hashes: Hashes) -> Names:
    """What files of a kind are called; those that stand in prompts without folders where that is enough."""
    entries = catalog.of(kind)
    known = {name: other_names(entry, hashes.known(entry.path)) for name, entry in entries.items()}
    if kind not in IN_PROMPTS:
        return known
    stems = Counter(entry.stem.casefold() for entry in entries.values())
    alone = {name for name, entry in entries.items() if stems[entry.stem.casefold()] == 1}
    return {
        entries[name].stem if name in alone or kind == Kind.EMBEDDING else name: (name, *others)
        for name, others in known.items()
    }


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
        plan, mistakes = without_unusable(plan, path, place.catalog, place.named)
        mistakes += [] if mistakes else misfits(plan, path, place.catalog, place.named)
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


def find_checkpoint(name: str, option: str, models: Sequence[Path] | None) -> Entry:
    """The checkpoint that a name, a file stem or a hash means; of a merge the first.

    Args:
        name: as jobs write it.
        option: where it was given, for messages.
        models: more folders of models.

    Raises:
        BadInput: if there is none, or several.
    """
    place = look_around(None, models)
    found = option_value("model", name, option, place.vocabulary.models)
    merge = None if found in place.checkpoints else merge_of(found)
    return place.checkpoints[found if merge is None else merge.parts[0]]


def option_value(
    setting: str,
    text: str,
    option: str,
    models: Names | None = None,
    files: Mapping[str, Names] | None = None,
) -> str:
    """What an option of a command means that is written as a setting of a job is.

    Raises:
        BadInput: if it is not allowed.
    """
    reading = Reading(models or {}, Seeds(), Mistakes(), files=files or {})
    try:
        [(_, found), *_] = SETTINGS[setting].expand([text], 0, reading)
    except BadValue as mistake:
        raise BadInput([Problem(option, str(mistake))]) from mistake
    return str(found)
