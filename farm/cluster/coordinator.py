"""The loop that turns cells into outcomes, whatever the workers are made of."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from farm.cell import Cell, Outcome
from farm.cluster.crew import USUAL, Crew, Patience, Reply
from farm.cluster.queue import DEATHS_ALONE, Attempt, Queue
from farm.cluster.tasks import CellTask, task_key, tasks_of
from farm.cluster.worker import Report
from farm.errors import FarmError
from farm.ordering import WaveOf, at_once
from farm.work import Work


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the farm itself that a person may want to know.

    Attributes:
        worker: which one.
        text: what happened, in one line.
        put_back: cells that will be rendered again because of it.
    """

    worker: str
    text: str
    put_back: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker did for a while.

    Attributes:
        worker: which one.
        work: since it was told before.
    """

    worker: str
    work: Work


Event = Outcome | Notice | Done


class Farm(Protocol):
    """What every farm offers, in this process or on a cluster; a context manager around its workers."""

    def __enter__(self) -> "Farm": ...

    def __exit__(self, *exception: object) -> None: ...

    @property
    def workers(self) -> int:
        """How many it has, whether there is work for all of them or not; 0 while it is not open."""

    def render(self, cells: Iterable[Cell], wave_of: WaveOf = at_once) -> Iterator[Event]:
        """Gives one outcome for each cell, as they come; closing it drops what is in flight.

        Args:
            cells: in render order.
            wave_of: the wave of each; one begins when nothing of those before is left to hand out.
        """


_PULSE = 1.0
"""Seconds between looks at the clock."""


@dataclass(slots=True)
class _Place:
    """One worker's place: lives come and go in it."""

    name: str
    up: bool = False
    calling: bool = False
    set_aside: bool = False
    loading: bool = False
    weights: str | None = None
    hungry: int = 0
    progress: int = 0
    since: float = 0.0  # the last progress
    retry_at: float = 0.0
    held: dict[object, int] = field(default_factory=dict)  # task key → number of the attempt


def render(
    cells: Iterable[Cell],
    crew: Crew,
    patience: Patience = USUAL,
    clock: Callable[[], float] = time.monotonic,
    wave_of: WaveOf = at_once,
) -> Iterator[Event]:
    """Renders cells with a crew; gives each cell's outcome once, and notices in between.

    Closing the generator kills the workers that are busy; others stay for the next call.

    Raises:
        FarmError: no worker is left, or none could be had for a long time.
    """
    run = _Run(Queue(tasks_of(cells, wave_of), crew.names), crew, patience, clock)
    try:
        yield from run.events()
    finally:
        run.dismiss()


class _Run:
    """One call of `render`. State changes before an event is given away, so that workers go on meanwhile."""

    def __init__(
        self, queue: Queue[tuple[Cell, ...]], crew: Crew, patience: Patience, clock: Callable[[], float]
    ) -> None:
        self._queue = queue
        self._crew = crew
        self._patience = patience
        self._clock = clock
        self._away = 0.0
        self._places = {name: _Place(name) for name in crew.names}
        self._inhabited = self._now()
        self._last_death = ""

    def events(self) -> Iterator[Event]:
        while self._queue.unfinished:
            self._require_hope()
            self._start_absent()
            self._serve_parked()
            for reply in self._crew.wait(_PULSE):
                yield from self._handed_out(self._take(reply))
            for place in self._overdue():
                yield from self._handed_out(self._lose(place, self._complaint(place)))

    def dismiss(self) -> None:
        for place in self._places.values():
            if place.held or (place.up and place.calling):
                self._crew.kill(place.name)

    def _now(self) -> float:
        """Seconds that passed here, and not with whoever takes the events: a slow disk is no hang."""
        return self._clock() - self._away

    def _handed_out(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            left = self._clock()
            yield event
            self._away += self._clock() - left

    def _require_hope(self) -> None:
        reason = f": {self._last_death}" if self._last_death else ""
        if not self._queue.usable:
            raise FarmError(f"every worker died again and again without finishing anything{reason}")
        if any(place.up for place in self._places.values()):
            self._inhabited = self._now()
        elif self._now() - self._inhabited > self._patience.deserted:
            raise FarmError(f"no worker could be had for {self._patience.deserted:g} s{reason}")

    def _start_absent(self) -> None:
        for place in self._places.values():
            if place.up or place.calling or place.set_aside or place.retry_at > self._now():
                continue
            if not self._crew.is_running(place.name):
                self._crew.start(place.name)
            place.since = self._now()
            if self._crew.is_called(place.name):  # it was starting when the last run ended
                place.calling = True
            else:
                self._call(place, (), more=True)

    def _serve_parked(self) -> None:
        if not self._queue.waiting:
            return
        for place in self._places.values():
            if place.up and not place.calling:
                self._serve(place)

    def _call(self, place: _Place, cells: Sequence[Cell], more: bool) -> None:
        place.calling = True
        self._crew.call(place.name, cells, more)

    def _take(self, reply: Reply) -> list[Event]:
        place = self._places[reply.worker]
        place.calling = False
        report = reply.report
        if report is None:
            return self._lose(place, reply.death)
        self._note_progress(place, report)
        events: list[Event] = [Notice(place.name, note) for note in report.work.notes]
        events += [Done(place.name, report.work)] if report.work else []
        for outcome in report.outcomes:
            events.extend(self._accept(place, outcome))
        if report.fatal:
            return [*events, *self._lose(place, report.fatal)]
        if place.up:
            place.hungry = report.hungry
            self._serve(place)
        else:
            self._call(place, (), more=True)
        return events

    def _note_progress(self, place: _Place, report: Report) -> None:
        if report.progress == place.progress:
            return
        place.progress, place.since = report.progress, self._now()
        place.loading = False
        if not place.up and not report.fatal:
            place.up = True
            self._queue.join(place.name)

    def _accept(self, place: _Place, outcome: Outcome) -> list[Event]:
        attempt = place.held.pop(task_key(outcome.cell), None)
        task = None if attempt is None else self._queue.finish(attempt)
        counted = outcome.cell.evaluations
        cells = () if task is None else task.payload
        return [replace(outcome, cell=replace(cell, evaluations=counted)) for cell in cells]

    def _serve(self, place: _Place) -> None:
        """Leases what the worker wants and calls it; with nothing in hand it is left alone."""
        wanted = place.hungry if place.held else max(1, place.hungry)
        attempts = self._queue.lease(place.name, wanted)
        if attempts:
            self._hand_over(place, attempts)
        if not place.held:
            return
        more = self._queue.waiting and len(attempts) >= wanted
        self._call(place, [attempt.task.payload[0] for attempt in attempts], more)

    def _hand_over(self, place: _Place, attempts: Sequence[Attempt[tuple[Cell, ...]]]) -> None:
        if not place.held:
            place.since = self._now()
        weights = attempts[0].task.weights
        place.loading = place.loading or weights != place.weights
        place.weights = weights
        place.held.update((attempt.task.key, attempt.number) for attempt in attempts)

    def _overdue(self) -> list[_Place]:
        return [
            place
            for place in self._places.values()
            if place.calling and self._now() - place.since > self._budget(place)
        ]

    def _budget(self, place: _Place) -> float:
        if not place.up:
            return self._patience.starting
        return self._patience.loading if place.loading else self._patience.stepping

    def _complaint(self, place: _Place) -> str:
        doing = "starting" if not place.up else "loading" if place.loading else "rendering"
        return f"no sign of life for {self._budget(place):g} s while {doing}"

    def _lose(self, place: _Place, death: str) -> list[Event]:
        self._crew.kill(place.name)
        self._last_death = f"{place.name}: {death}"
        loss = self._queue.lose(place.name)
        barren = self._queue.barren(place.name)
        fresh = _Place(place.name, set_aside=loss.set_aside, retry_at=self._now() + _delay(barren))
        self._places[place.name] = fresh
        text = f"{death}; {'set aside' if loss.set_aside else 'replaced'}"
        text += f"; cells to render again: {loss.put_back}" if loss.put_back else ""
        return [Notice(place.name, text, loss.put_back), *_condemned(loss.condemned, place.name, death)]


def _delay(barren: int) -> float:
    """Seconds until the next life: at once after one that got something done."""
    return float(2**barren - 1)


def _condemned(tasks: Iterable[CellTask], worker: str, death: str) -> list[Event]:
    error = f"the worker died {DEATHS_ALONE} times while rendering this cell alone; the last time: {death}"
    return [Outcome(cell, "failed", error=error, worker=worker) for task in tasks for cell in task.payload]
