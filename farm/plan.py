"""A compiled job: inert, complete, and in the order in which it is rendered."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from farm.axes import Axis, AxisValue
from farm.cell import Cell, Settings, SettingValue, UsedFile
from farm.costs import encodings, evaluations, first_rows, leaves_out, rows, shallow_rows, weighed_rows
from farm.document import Place
from farm.errors import BadInput, Problem
from farm.init_images import InitImage
from farm.job import Job
from farm.layout import Layout as Layout
from farm.merges import unweighted, weighted
from farm.ordering import Order, coarse_wave, in_render_order
from farm.patch_settings import NONE, put_into_prompts
from farm.remarks import Remarks
from farm.resolving import completed, settled
from farm.sampling import AUTOMATIC, BUILT_IN, Samplers
from farm.settings import INIT_IMAGE, MERGE_WEIGHT, PROMPTS
from farm.starting import image_encoding
from farm.wording import BadWording, Wording
from farm.work import Need, Networks, Size

FilesOf = Callable[[Settings], tuple[UsedFile, ...]]
"""The files that a picture is made with beside its checkpoint."""


def no_files(_: Settings) -> tuple[UsedFile, ...]:
    """Of pictures that are made with none."""
    return ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job comes to.

    Attributes:
        name: of the job, and of its folder under results/.
        axes: in the order of the job file.
        layout: of the sheet.
        cells: what is to be rendered, in render order.
        job_yaml: the job as run, with resolved seeds written in.
        samplers: that the job can name.
        asked: what the job says at its top and no axis sets, by the names of `farm.settings.SETTINGS`.
        typed: the prompt and the negative prompt at the job's top, whatever is made of them.
        by_evaluations: whether it is the evaluations of the model that the job says, and not the steps.
        warnings: what is no mistake, but looks like one, with its place.
        order: in which the cells stand.
        places: where the settings that the job gives stand, by name.
        notes: what somebody who asked for it should know: settings that do not matter to some cells.
        init_images: that pictures start from, by the SHA-256 of their files.
        failing: files that cannot be used, each with its place and how many cells fail of it.
    """

    name: str
    axes: tuple[Axis, ...]
    layout: Layout
    cells: tuple[Cell, ...]
    job_yaml: str = ""
    samplers: Samplers = BUILT_IN
    notes: tuple[str, ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict)
    asked: Mapping[str, SettingValue] = field(default_factory=dict)
    by_evaluations: bool = False
    typed: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    order: Order = Order.FAST
    init_images: Mapping[str, InitImage] = field(default_factory=dict)
    failing: tuple[str, ...] = ()

    def keyed(
        self,
        model_hashes: Mapping[str, str],
        files_of: FilesOf = no_files,
        counted: Callable[[Settings], Settings] = lambda settings: settings,
    ) -> "Plan":
        """This plan with final keys.

        Args:
            model_hashes: SHA-256 of each checkpoint by its name.
            files_of: the other files that a picture is made with.
            counted: settings with what counts in the place of names.
        """
        cells = tuple(
            cell.keyed(model_hashes[cell.settings.model], files_of(cell.settings), counted(cell.settings))
            for cell in self.cells
        )
        return replace(self, cells=cells)

    def models(self) -> tuple[str, ...]:
        """The checkpoints that it needs."""
        return tuple(sorted({cell.settings.model for cell in self.cells}))

    def without(self, done: Collection[str]) -> "Plan":
        """What is left of this plan when the cells with these keys are there already."""
        return replace(self, cells=tuple(cell for cell in self.cells if cell.key not in done))

    def in_order(self, order: Order) -> "Plan":
        """This plan with its cells in another order, which changes no picture."""
        plan = replace(self, order=order)
        return replace(plan, cells=tuple(in_render_order(self.cells, self.samplers, plan.wave_of)))

    def wave_of(self, cell: Cell) -> int:
        """Which wave a cell belongs to, from 0: a coarse order goes over the axes several times."""
        if self.order is Order.FAST:
            return 0
        return coarse_wave(cell.coordinates, [len(axis.values) for axis in self.axes])

    def evaluations(self) -> int:
        """How often a model is asked, over all pictures."""
        return sum(evaluations(settings, self.samplers) for settings in self.pictures())

    def rows(self) -> int:
        """Rows that go through a UNet: an evaluation has one for each text that has a coefficient."""
        return self._rows_of(self.pictures())

    def unshared_rows(self) -> int:
        """Rows that would go through a UNet if cells shared none."""
        return sum(rows(settings, self.samplers) for settings in self.pictures())

    def shared_rows(self) -> int:
        """Rows that need no computing, because a cell with the same noise and text has the same first row."""
        pictures = self.pictures()
        firsts = [row for settings in pictures for row in first_rows(settings, self.samplers)]
        return len(firsts) - len(set(firsts))

    def leaves_rows_out(self) -> bool:
        """Whether there may be fewer rows, since evaluations at low noise leave some out."""
        return any(map(leaves_out, self.pictures()))

    def shallow_rows(self) -> int:
        """Those of the rows that use deep features of before and go through the shallow blocks alone."""
        return sum(shallow_rows(settings, self.samplers) for settings in self.pictures())

    def needs(self) -> dict[Size, Need]:
        """Rows and pictures, by what their time hangs on."""
        sizes: dict[Size, list[Settings]] = {}
        for settings in self.pictures():
            size = Size(settings.model, settings.precision, settings.width, settings.height)
            sizes.setdefault(size, []).append(settings)
        return {size: self._need(group) for size, group in sizes.items()}

    def _need(self, group: Collection[Settings]) -> Need:
        weighed = sum(weighed_rows(evaluations(settings, self.samplers), settings) for settings in group)
        unshared = sum(rows(settings, self.samplers) for settings in group)
        return Need(weighed - unshared + self._rows_of(group), len(group), _encoded(group))

    def _rows_of(self, group: Collection[Settings]) -> int:
        """After those that are shared; cells of several sizes share none."""
        firsts = [row for settings in group for row in first_rows(settings, self.samplers)]
        unshared = sum(rows(settings, self.samplers) for settings in group)
        return unshared - len(firsts) + len(set(firsts))

    def text_encodings(self) -> int:
        """How many texts are encoded: each once for a model and a clip skip, whatever its weights."""
        return sum(self.texts().values())

    def texts(self) -> Counter[Networks]:
        """The same, by what encodes them."""
        found = {key for settings in self.pictures() for key in encodings(settings, self.samplers)}
        return Counter(Networks(model, precision) for model, precision, *_ in found)

    def image_encodings(self) -> int:
        """How many pictures are encoded to start from: each once for a model and a size."""
        return _encoded(self.pictures())

    def shown(self, name: str, value: SettingValue) -> SettingValue:
        """A setting's value as people know it: a picture by the path that the job has."""
        image = self.init_images.get(str(value)) if name == INIT_IMAGE else None
        return value if image is None else image.name

    def pictures(self) -> Collection[Settings]:
        """The settings of the cells; those of cells that want the same picture count once."""
        return {cell.settings for cell in self.cells}


def _encoded(group: Collection[Settings]) -> int:
    """Pictures that are encoded for these to start from."""
    return len({image_encoding(settings) for settings in group if settings.init_image})


def compile_job(job: Job) -> Plan:
    """Multiply a job out.

    Cells are numbered in the order of the axes, the last axis running fastest. Two combinations with the
    same settings are two cells with different numbers and, once hashed, the same key: both are shown, and
    one picture is rendered for both. Cells stand in render order (`farm.ordering`).

    Raises:
        BadInput: if settings contradict each other in a combination, or every combination is skipped.
    """
    remarks = Remarks(job)
    cells = list(_cells(job, remarks))
    remarks.raise_any()
    if not cells:
        raise BadInput([Problem(str(job.skips[0].place), "skip: leaves no cell")])
    return Plan(
        job.name,
        job.axes,
        job.layout,
        tuple(in_render_order(cells, job.samplers)),
        job.job_yaml,
        job.samplers,
        remarks.notes(),
        job.places,
        _said_at_the_top(job),
        by_evaluations="evaluations" in job.places,
        typed={name: str(job.base.get(name, "")) for name in PROMPTS},
        warnings=(*job.warnings, *remarks.warnings()),
        init_images=job.init_images,
    )


def _said_at_the_top(job: Job) -> dict[str, SettingValue]:
    """What the job says itself and no axis sets; prompts only where they are used as they stand there."""
    values = [value for axis in job.axes for value in axis.values]
    changed = {name for value in values for name in value.settings}
    if job.styles or job.wildcards or any(value.replaces or value.order or value.styles for value in values):
        changed.update(PROMPTS)
    base: Mapping[str, Any] = job.base
    told = {name: value for name, value in base.items() if name in job.places and name not in changed}
    if "model" in told and MERGE_WEIGHT in changed:
        told["model"] = unweighted(told["model"], MERGE_WEIGHT)
    elif "model" in told and MERGE_WEIGHT in told:
        told["model"] = weighted(told["model"], told[MERGE_WEIGHT])
    return told


def _cells(job: Job, remarks: Remarks) -> Iterator[Cell]:
    names = [axis.name for axis in job.axes]
    known: dict[Settings, Settings] = {}
    wording = Wording(job)
    number = 0
    for coordinates in product(*(range(len(axis.values)) for axis in job.axes)):
        values = [axis.values[index] for axis, index in zip(job.axes, coordinates)]
        try:
            asked = completed(_asked(job, values, wording), job.samplers)
        except BadWording as mistake:
            remarks.wrong(mistake.faults)
            continue
        titles = {name: value.title for name, value in zip(names, values)} if job.skips else {}
        if remarks.skipped(asked, titles):
            continue
        if remarks.contradicted(asked):
            continue
        settings, ignored = settled(asked, job.samplers)
        remarks.ignored(asked, ignored)
        number += 1
        count = evaluations(settings, job.samplers)
        shared = known.setdefault(settings, settings)
        yield Cell(number, coordinates, shared, job.plugins, evaluations=count)
    remarks.lacking(wording.lacking)


def _asked(job: Job, values: Sequence[AxisValue], wording: Wording) -> dict[str, Any]:
    """What a combination asks for; a VAE by its name wherever it is not the one in the checkpoint."""
    chosen: dict[str, Any] = dict(job.base)
    for value in values:
        chosen.update(value.settings)
    chosen["model"] = weighted(chosen["model"], chosen.get(MERGE_WEIGHT))
    if chosen["vae"] == AUTOMATIC:
        chosen["vae"] = job.vaes_beside.get(chosen["model"], AUTOMATIC)
    elif chosen["vae"] == NONE:
        chosen["vae"] = AUTOMATIC
    wording.word(chosen, values)
    put_into_prompts(chosen)
    return chosen
