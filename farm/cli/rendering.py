"""What `farm run` does once its jobs are right: render, store, draw the sheets, say what came of it."""

import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from farm.cell import Cell, Outcome
from farm.cli.account import Account
from farm.cli.early import Early
from farm.cli.farms import open_farm
from farm.cli.hashing import telling
from farm.cli.jobs import Place
from farm.cli.misfits import MAX_OF_PIXELS
from farm.cli.progress import RunProgress
from farm.cli.words import counted
from farm.cluster.coordinator import Notice
from farm.errors import FarmError
from farm.init_pixels import InitPixels, made_ready
from farm.interrupts import STATUS, uninterrupted
from farm.ordering import WaveOf
from farm.plan import Plan
from farm.rates import Rates
from farm.results.gallery import write_gallery
from farm.results.overview import write_overview
from farm.results.scoring import score_stored, unscored
from farm.results.sheet import write_sheets
from farm.results.store import Store, done_in
from farm.results.whole import write_whole
from farm.starting import init_pictures

if TYPE_CHECKING:
    from farm.cluster.coordinator import Event, Farm

INDEX_EVERY = 30.0
"""Seconds after which the index is written again while a job runs."""

SHEETS_SHOWN = 5
"""Sheets whose place is printed; the others lie beside them."""

PROFILE = "profile"
"""The folder beside the results of what `--profile` finds."""

REASONS_SHOWN = 20
"""Failed cells that are listed one by one at the end."""


def render_jobs(
    plans: Sequence[Plan],
    place: Place,
    inline: bool,
    address: str | None,
    workers: int | None,
    options: Mapping[str, Any],
) -> int:
    """Renders what is missing of each job and writes all its files; returns how many cells failed.

    Raises:
        typer.Exit: with status 130 when it is interrupted.
        FarmError: no worker is left, the disk is full, somebody else writes to the results.
    """
    plans = _keyed(plans, place)
    checkpoints = place.where(model for plan in plans for model in plan.models())
    files = place.file_paths(plans)

    def opened() -> "Farm":
        own = {**options, **_init_pixels(plans, place), **({"files": files} if files else {})}
        return open_farm(checkpoints, place.workspace.plugin_folders, inline, address, workers, own)

    with _LateFarm(opened, inline, options["compiled"]) as farm:
        try:
            return sum([_run_job(plan, place, farm, options, plan is not plans[0]) for plan in plans])
        finally:
            write_overview(place.results)


def _init_pixels(plans: Sequence[Plan], place: Place) -> dict[str, InitPixels]:
    """What renderers are given of the pictures that cells to be rendered start from; nothing if none does."""
    left = [plan.without(done_in(place.results / plan.name)) for plan in plans]
    wanted = init_pictures(cell.settings for plan in left for cell in plan.cells)
    images = {key: image for plan in plans for key, image in plan.init_images.items()}
    if not wanted:
        return {}
    if sum(one.bytes_of_pixels for one in wanted) > MAX_OF_PIXELS:
        whole = f"the pictures to start from are more than {MAX_OF_PIXELS >> 30} GiB of pixels together"
        raise FarmError(f"{whole}; render these jobs one by one")
    _say(f"preparing {counted(len(wanted), 'picture')} to start from")
    return {"pictures": made_ready(wanted, images)}


class _LateFarm:
    """The farm, started when the first cell is to be rendered and stopped at the end."""

    def __init__(self, opened: Callable[[], "Farm"], inline: bool, compiles: bool) -> None:
        self._opened = opened
        first = "; the first full batches are compiled, which takes a while" if compiles else ""
        self._begins = f"{'loading' if inline else 'starting the workers'}{first}"
        self._stack = ExitStack()
        self._farm: Farm | None = None

    def __enter__(self) -> "_LateFarm":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def workers(self) -> int:
        """That it has; 0 before it is started."""
        return self._farm.workers if self._farm else 0

    def render(self, cells: Sequence[Cell], wave_of: WaveOf) -> Generator["Event"]:
        """The farm's events for these cells; nothing is started for none."""
        if not cells:
            return
        if self._farm is None:
            opened = self._opened()
            _say(self._begins)
            self._farm = self._stack.enter_context(opened)
        yield from self._farm.render(cells, wave_of)


def _keyed(plans: Sequence[Plan], place: Place) -> list[Plan]:
    hashed = place.hashed(plans, telling(place.hashes))
    return [hashed.keyed(plan) for plan in plans]


def _run_job(plan: Plan, place: Place, farm: _LateFarm, options: Mapping[str, Any], follows: bool) -> int:
    """Renders a job; `follows` is whether another one of this command was rendered before."""
    with Store(place.results / plan.name, plan) as store:
        store.write_job()
        left = plan.without(store.done())
        _say(_opening(plan, left))
        started, account = time.monotonic(), Account(follows)
        try:
            _render(plan, left, store, farm, account)
            scoreless = _score(plan, store, place)
            failed = _close(plan, store, len(left.cells), time.monotonic() - started)
        except KeyboardInterrupt:
            with suppress(FarmError, OSError, KeyboardInterrupt):  # what was committed is in the journal
                _say(f"{plan.name}: interrupted; {_kept(store, plan)}; the same command goes on from there")
                _write_what_is_there(plan, store)
                _note_rates(left, account, place, options, farm.workers)
                _tell_where_time_went(account, store.folder, options)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the workers have yet to be stopped
            raise typer.Exit(STATUS) from None
        except BaseException:
            with suppress(FarmError):  # the first cause is what must be told
                store.write_index()
            raise
        _tell(left, account, options)
        _note_rates(left, account, place, options, farm.workers)
        _tell_where_time_went(account, store.folder, options)
        return scoreless + failed


def _write_what_is_there(plan: Plan, store: Store) -> None:
    """Index, sheets and page of a run that was interrupted; if that is, too, the sheets are left out."""
    store.write_index()
    _say(f"{plan.name}: drawing what is there; Ctrl-C again leaves it out")
    try:
        write_sheets(plan, store.records(), store.folder)
    finally:
        print(f"page:  {write_gallery(plan, store.records(), store.folder)}", flush=True)


def _tell(planned: Plan, account: Account, options: Mapping[str, Any]) -> None:
    """What was done, beside what was planned."""
    for line in account.lines(planned):
        _say(f"{planned.name}: {line}")
    if options["compiled"] and account.work and not (account.follows or account.work.of("compile").calls):
        _say(f"{planned.name}: nothing was compiled: too few batches were full, or the UNet lies on the host")


def _note_rates(
    planned: Plan, account: Account, place: Place, options: Mapping[str, Any], workers: int
) -> None:
    """How long it took, for the plans to come.

    What a compiler or a profiler took of the time says nothing about other runs.
    """
    if not any(options.values()):
        hashes = {cell.settings.model: cell.model_hash for cell in planned.cells}
        Rates().note(account.works.values(), hashes, str(place.workspace.root), workers)


def _tell_where_time_went(account: Account, folder: Path, options: Mapping[str, Any]) -> None:
    if not (options.get("profiled") and account.work):
        return
    print(account.table())
    files = list(account.files())
    for worker, name, content in files:
        write_whole(folder / PROFILE / worker / name, content)
    none = "no trace: each worker records one, after its first batches and of one job of a command"
    print(f"profile: {folder / PROFILE if files else none}")


def _render(plan: Plan, left: Plan, store: Store, farm: _LateFarm, account: Account) -> None:
    indexed = time.monotonic()
    with (
        Early(plan, left, store) as early,
        RunProgress(left.name, len(left.cells)) as progress,
        closing(farm.render(left.cells, left.wave_of)) as events,
    ):
        for event in events:
            account.add(event)
            if isinstance(event, Notice):
                progress.say(f"{left.name}: {event.worker}: {event.text}")
            if not isinstance(event, Outcome):
                continue
            with uninterrupted():
                store.write(event)
            progress.count(failed=event.status == "failed")
            if said := early.add(event.cell):
                progress.say(said)
            if time.monotonic() - indexed > INDEX_EVERY:
                store.write_index()
                indexed = time.monotonic()


def _score(plan: Plan, store: Store, place: Place) -> int:
    """Adds scores that were asked for after the pictures were made; returns how many could not be."""
    outcomes = list(score_stored(unscored(plan, store), store, place.workspace.plugin_folders))
    failures = [(cell, reason) for cell, reason in outcomes if reason]
    if outcomes:
        count = len(outcomes) - len(failures)
        there = "that was there already is" if count == 1 else "that were there already are"
        _say(f"{plan.name}: {counted(count, 'picture')} {there} scored")
    for cell, reason in failures[:REASONS_SHOWN]:
        _say(f"{plan.name}: {_called(plan, cell)} has no score: {reason}")
    return len(failures)


def _close(plan: Plan, store: Store, tried: int, seconds: float) -> int:
    store.write_index()
    records = store.records()
    sheets = write_sheets(plan, records, store.folder)
    page = write_gallery(plan, records, store.folder)
    failures = [cell for cell in plan.cells if records[cell.key].status == "failed"]
    for cell in failures[:REASONS_SHOWN]:
        _say(f"{plan.name}: {_called(plan, cell)} failed: {records[cell.key].error}")
    if len(failures) > REASONS_SHOWN:
        _say(f"{plan.name}: {len(failures) - REASONS_SHOWN} more failed; index.csv says why")
    _say(f"{plan.name}: {tried - len(failures)} rendered, {len(failures)} failed, in {seconds:.1f} s")
    for sheet in sheets[:SHEETS_SHOWN]:
        print(f"sheet: {sheet}")
    if len(sheets) > SHEETS_SHOWN:
        print(f"       and {len(sheets) - SHEETS_SHOWN} more beside it")
    print(f"index: {store.folder / 'index.csv'}")
    print(f"page:  {page}")
    return len(failures)


def _opening(plan: Plan, left: Plan) -> str:
    kept = len(plan.cells) - len(left.cells)
    there = f", {kept} {'is' if kept == 1 else 'are'} there already" if kept else ""
    different = len({cell.key for cell in left.cells})
    twins = f" ({counted(different, 'different picture')})" if different < len(left.cells) else ""
    return f"{plan.name}: {counted(len(plan.cells), 'cell')}{there}, {len(left.cells)} to render{twins}"


def _kept(store: Store, plan: Plan) -> str:
    done = store.done()
    return f"{sum(cell.key in done for cell in plan.cells)} of {counted(len(plan.cells), 'cell')} kept"


def _called(plan: Plan, cell: Cell) -> str:
    pairs = zip(plan.axes, cell.coordinates, strict=True)
    where = ", ".join(f"{axis.name}: {axis.values[index].title}" for axis, index in pairs)
    return f"cell {cell.number} ({where})" if where else f"cell {cell.number}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
