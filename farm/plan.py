"""A compiled job: inert, complete, and in the order in which it is rendered."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from farm.axes import Axis, AxisValue
from farm.cell import Cell, Settings
from farm.costs import evaluations, first_pass, first_rows, guiding_texts, rows
from farm.errors import BadInput, Problem
from farm.job import Job
from farm.layout import Layout as Layout
from farm.prompts import replaced


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job comes to.

    Attributes:
        name: of the job, and of its folder under results/.
        axes: in the order of the job file.
        layout: of the sheet.
        cells: what is to be rendered, in render order.
        job_yaml: the job as run, with resolved seeds written in.
    """

    name: str
    axes: tuple[Axis, ...]
    layout: Layout
    cells: tuple[Cell, ...]
    job_yaml: str = ""

    def keyed(self, model_hashes: Mapping[str, str]) -> "Plan":
        """This plan with final keys, given the SHA-256 of each checkpoint by its name."""
        cells = tuple(cell.keyed(model_hashes[cell.settings.model]) for cell in self.cells)
        return replace(self, cells=cells)

    def without(self, done: Collection[str]) -> "Plan":
        """What is left of this plan when the cells with these keys are there already."""
        return replace(self, cells=tuple(cell for cell in self.cells if cell.key not in done))

    def evaluations(self) -> int:
        """How often a model is asked, over all pictures."""
        return sum(map(evaluations, self._pictures()))

    def rows(self) -> int:
        """Rows that go through a UNet: an evaluation has two, or one where guidance drops the other."""
        return sum(map(rows, self._pictures())) - self.shared_rows()

    def shared_rows(self) -> int:
        """Rows that need no computing, because a cell with the same noise and text has the same first row."""
        firsts = [row for settings in self._pictures() for row in first_rows(settings)]
        return len(firsts) - len(set(firsts))

    def text_encodings(self) -> int:
        """How many texts are encoded: each once for a model and a clip skip."""
        return len(
            {
                (settings.model, settings.precision, settings.clip_skip, text)
                for settings in self._pictures()
                for text in (settings.prompt, *guiding_texts(settings))
            }
        )

    def _pictures(self) -> Collection[Settings]:
        """The settings of the cells; those of cells that want the same picture count once."""
        return {cell.settings for cell in self.cells}


def compile_job(job: Job) -> Plan:
    """Multiply a job out.

    Cells are numbered in the order of the axes, the last axis running fastest. Two combinations with the
    same settings are two cells with different numbers and, once hashed, the same key: both are shown, and
    one picture is rendered for both. Cells stand in render order: those that share weights together, among
    these those of a size, then those that share a first pass, and among these the longest first.

    Raises:
        BadInput: if every combination is skipped.
    """
    cells = _in_render_order(list(_cells(job)))
    if not cells:
        raise BadInput([Problem(str(job.skips[0].place), "skip: leaves no cell")])
    return Plan(job.name, job.axes, job.layout, tuple(cells), job.job_yaml)


def _cells(job: Job) -> Iterator[Cell]:
    base = asdict(job.base)
    names = [axis.name for axis in job.axes]
    known: dict[Settings, Settings] = {}
    texts: dict[str, str] = {}
    number = 0
    for coordinates in product(*(range(len(axis.values)) for axis in job.axes)):
        values = [axis.values[index] for axis, index in zip(job.axes, coordinates)]
        settings = _settings(base, values, texts)
        titles = {name: value.title for name, value in zip(names, values)} if job.skips else {}
        if any(skip.drops(settings, titles) for skip in job.skips):
            continue
        number += 1
        yield Cell(number, coordinates, known.setdefault(settings, settings), job.plugins)


def _settings(base: Mapping[str, Any], values: Sequence[AxisValue], texts: dict[str, str]) -> Settings:
    """The settings of a combination; `texts` keeps one copy of each prompt that comes out of a search."""
    chosen = dict(base)
    for value in values:
        chosen.update(value.settings)
    if pairs := [pair for value in values for pair in value.replaces]:
        for name in ("prompt", "negative_prompt"):
            text = replaced(chosen[name], pairs)
            chosen[name] = texts.setdefault(text, text)
    return Settings(**chosen)


def _in_render_order(cells: Sequence[Cell]) -> list[Cell]:
    ranks: dict[Hashable, int] = {}

    def rank(*group: Hashable) -> int:
        return ranks.setdefault(group, len(ranks))

    def order(cell: Cell) -> tuple[int, ...]:
        settings = cell.settings
        weights = (settings.model, settings.precision)
        size = (*weights, settings.width, settings.height)
        start = first_pass(settings)
        return rank(*weights), rank(*size), rank(*start), -evaluations(settings), cell.number

    return sorted(cells, key=order)
