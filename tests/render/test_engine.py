import gc
import threading
import tracemalloc
from typing import Any

import pytest
import torch

from farm.questions import Draw
from farm.render.capacity import Capacity
from farm.render.draws import Draws
from farm.render.engine import Engine
from farm.render.noise import SeededNoise
from farm.render.requests import Coroutine, Decode, Predict, Request, Share
from farm.render.task import Task
from farm.render.transfers import Later
from farm.work import total
from tests.render.arithmetic import NOTHING, Doubling, ask, asks, engine, finish, last, number, steps


def results(machine: Engine) -> dict[object, object]:
    return {name: one.error or one.result for name, one in finish(machine).items()}


def test_mixes_cells_of_any_length_in_full_batches() -> None:
    runner = Doubling()
    machine = engine(runner, rows=4)
    for index in range(12):
        machine.submit(index, steps(1, count=1 + index % 3))
    assert results(machine) == {index: 2.0 ** (1 + index % 3) for index in range(12)}
    sizes = [len(batch) for batch in runner.batches]
    assert sum(sizes) == 24 and sizes[:5] == [4] * 5


def test_answers_of_a_batch_are_all_there_before_anyone_goes_on() -> None:
    runner = Doubling()

    def noting(index: int) -> Coroutine:
        yield ask(index)
        runner.log.append("go on")

    machine = engine(runner, rows=3)
    for index in range(3):
        machine.submit(index, noting(index))
    finish(machine)
    assert runner.log == ["answer"] * 3 + ["go on"] * 3


def test_a_tuple_is_answered_together_and_in_its_order() -> None:
    machine = engine(Doubling(), rows=2)
    machine.submit("cell", asks(ask(3), ask(1, "other weights"), ask(2), Draw(noise := seeded()), last(4)))
    first, second, third, drawn, fourth = finish(machine)["cell"].result
    assert (first, second, third, fourth) == (6, 2, 4, 8)
    assert torch.equal(drawn, seeded().draw()) and not torch.equal(drawn, noise.draw())


def seeded() -> SeededNoise:
    return SeededNoise(11, (4, 2, 2), torch.device("cpu"))


def test_nothing_asked_is_answered_by_nothing() -> None:
    machine = engine(Doubling())
    machine.submit("cell", asks())
    assert results(machine) == {"cell": ()}


def test_rows_of_different_keys_never_meet() -> None:
    runner = Doubling()
    machine = engine(runner, rows=4)
    for index in range(12):
        machine.submit(index, asks(ask(index, "ab"[index % 2], 1 + index % 3), last(index, "ab"[index % 2])))
    finish(machine)
    assert all(len({request.batch_key for request in batch}) == 1 for batch in runner.batches)
    assert sum(len(batch) for batch in runner.batches) == 24


@pytest.mark.parametrize("where", ["first", "later"])
def test_an_exception_ends_its_own_cell_only(where: str) -> None:
    def breaking() -> Coroutine:
        if where == "later":
            yield ask(1)
        raise ValueError("my own")

    machine = engine(Doubling(), rows=2)
    machine.submit("bad", breaking())
    machine.submit("good", steps(1, 3))
    ended = finish(machine)
    assert isinstance(ended["bad"].error, ValueError) and ended["good"].result == 8


@pytest.mark.parametrize("nonsense", [None, 7, "row", [ask(1)], ("row", ask(1))], ids=repr)
def test_nonsense_fails_alone(nonsense: object) -> None:
    def babbling() -> Coroutine:
        yield nonsense

    machine = engine(Doubling())
    machine.submit("bad", babbling())
    machine.submit("good", steps(1, 2))
    ended = finish(machine)
    assert isinstance(ended["bad"].error, TypeError) and "which is no request" in str(ended["bad"].error)
    assert ended["good"].result == 4


@pytest.mark.parametrize("poisoned", [(3.0,), (0.0, 7.0), tuple(map(float, range(8)))])
def test_a_row_that_breaks_its_batch_is_found_by_halving(poisoned: tuple[float, ...]) -> None:
    machine = engine(Doubling(poisoned), rows=8)
    for index in range(8):
        machine.submit(index, steps(index, 1))
    ended = finish(machine)
    assert {name for name, one in ended.items() if one.error} == set(poisoned)
    for name, one in ended.items():
        assert str(one.error) == f"cannot double [{float(name)}]" if one.error else one.result == 2 * name


def test_a_cell_can_catch_what_its_row_raised() -> None:
    def trying() -> Coroutine:
        try:
            yield ask(3)
        except RuntimeError:
            return (yield ask(4))

    machine = engine(Doubling(poisoned=(3.0,)))
    machine.submit("cell", trying())
    assert results(machine) == {"cell": 8}


def test_out_of_memory_splits_the_batch_and_lowers_the_capacity_of_its_key_for_good() -> None:
    runner = Doubling(memory=3)
    machine = engine(runner, rows=16)
    for index in range(64):
        machine.submit(index, steps(index, 2))
    assert results(machine) == {index: 4 * index for index in range(64)}
    sizes = [len(batch) for batch in runner.batches]
    assert sizes[:3] == [16, 8, 4] and set(sizes[3:]) == {2}  # the larger ones are never tried again
    runner.memory = 10**9
    for index in range(16):
        machine.submit(index, asks(ask(index, "a"), ask(index, "b")))
    finish(machine)
    later = runner.batches[len(sizes) :]
    assert {len(batch) for batch in later if batch[0].weights.model == "a"} == {2}
    assert 16 in {len(batch) for batch in later if batch[0].weights.model == "b"}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("MPS backend out of memory (allocated 5 GB)")])
def test_out_of_memory_is_known_by_every_name(error: Exception) -> None:
    class Short(Doubling):
        def run(self, requests: list) -> list:
            if len(requests) > 2:
                self.batches.append(requests)
                raise error
            return super().run(requests)

    runner = Short()
    machine = engine(runner, rows=4)
    for index in range(16):
        machine.submit(index, steps(index, 1))
    assert results(machine) == {index: 2 * index for index in range(16)}
    assert [len(batch) for batch in runner.batches] == [4, 2, 2] + [2] * 6


def test_a_single_row_that_does_not_fit_fails_its_cell() -> None:
    machine = engine(Doubling(memory=0), rows=4)
    machine.submit("cell", steps(1, 1))
    assert isinstance(finish(machine)["cell"].error, torch.OutOfMemoryError)


def ends_within(batches: int, name: str, machine: Engine) -> bool:
    return any(one.name == name for _ in range(batches) for one in machine.step())


def test_finished_cells_are_decoded_while_others_go_on() -> None:
    runner = Doubling()
    machine = engine(runner, rows=4)

    def cell(length: int) -> Coroutine:
        for _ in range(length):
            yield ask(1)
        return (yield last(1))

    machine.submit("short", cell(1))
    for index in range(8):
        machine.submit(index, cell(500))
    assert ends_within(60, "short", machine) and machine.in_flight == 8


def test_a_thin_key_is_served_beside_one_that_is_always_full() -> None:
    machine = engine(Doubling(), rows=4)
    machine.submit("thin", steps(1, 3, weights="rare"))
    for index in range(8):
        machine.submit(index, steps(0, 500))
    assert ends_within(120, "thin", machine) and machine.in_flight == 8


def test_nothing_to_do_is_done_at_once() -> None:
    machine = engine(runner := Doubling())
    assert machine.step() == [] and machine.in_flight == 0 and runner.batches == []


def test_admits_no_more_than_fill_the_batches() -> None:
    machine = engine(Doubling(), rows=4)
    for index in range(100):
        machine.submit(index, steps(1, 10))
    machine.step()
    assert machine.waiting >= 100 - 8 and machine.in_flight == 100


@pytest.mark.parametrize("begun", [False, True])
def test_a_cancelled_cell_asks_nothing_more(begun: bool) -> None:
    runner, closed = Doubling(), []

    def cell() -> Coroutine:
        try:
            while True:
                yield ask(9)
        finally:
            closed.append(True)

    machine = engine(runner, rows=2)
    machine.submit("cancelled", cell())
    machine.submit("other", steps(1, 3))
    if begun:
        machine.step()
    machine.cancel("cancelled")
    asked = sum(number(request) == 9 for batch in runner.batches for request in batch)
    assert asked == begun and closed == [True] * begun
    assert results(machine) == {"other": 8}
    assert asked == sum(number(request) == 9 for batch in runner.batches for request in batch)


def test_a_name_is_refused_while_it_is_in_flight() -> None:
    machine = engine(Doubling())
    machine.submit("cell", steps(1, 2))
    with pytest.raises(ValueError, match="'cell' is in flight"):
        machine.submit("cell", steps(1, 2))
    finish(machine)
    machine.submit("cell", steps(2, 1))
    assert results(machine) == {"cell": 4}


class Slow:
    """A source whose draws wait for a sign; notes what is drawn, in which thread."""

    def __init__(self, log: list[object] | None = None) -> None:
        self.may = threading.Event()
        self.log: list[object] = [] if log is None else log
        self.threads: set[int] = set()

    def draw(self, sigma: float | None = None, lower: float | None = None) -> torch.Tensor:
        assert self.may.wait(60)
        self.threads.add(threading.get_ident())
        self.log.append(sigma)
        return torch.full((1,), float(sigma or 0))


def test_noise_is_drawn_while_the_device_works() -> None:
    noise = Slow()

    class Giving(Doubling):
        def run(self, requests: list) -> list:
            noise.may.set()  # or the draw would never end: it was asked for with the row
            return super().run(requests)

    machine = engine(Giving(), rows=1)
    machine.submit("cell", asks(ask(3), Draw(noise, 5.0)))
    row, drawn = finish(machine)["cell"].result
    assert (row, float(drawn)) == (6, 5) and threading.get_ident() not in noise.threads


def test_noise_that_was_asked_for_with_a_row_is_not_waited_for_before_it() -> None:
    """Also where there is room in the batch: the draw could add no row to it."""
    noise = Slow()

    class Giving(Doubling):
        def run(self, requests: list) -> list:
            noise.may.set()
            return super().run(requests)

    machine = engine(Giving(), rows=64)
    machine.submit("cell", asks(ask(3), Draw(noise, 5.0)))
    row, drawn = finish(machine)["cell"].result
    assert (row, float(drawn)) == (6, 5)


def test_nothing_is_drawn_after_the_end() -> None:
    """Not even for a source that was waiting for a thread when the end came."""
    draws, task = Draws(threads=1), Task("cell", asks(), 0)
    busy, waiting = Slow(), Slow()
    for source in (busy, waiting):
        draws.ask(task, 0, Draw(source))
    threading.Timer(0.3, busy.may.set).start()  # once the end has come
    draws.close()
    with pytest.raises(RuntimeError):
        draws.ask(task, 0, Draw(waiting))


def test_a_full_batch_does_not_wait_for_noise() -> None:
    noise, runner = Slow(), Doubling()
    machine = engine(runner, rows=2)
    machine.submit("drawing", asks(Draw(noise)))
    for index in range(4):
        machine.submit(index, steps(1, 3))
    ended = [one.name for _ in range(3) for one in machine.step()]
    assert ended == [0, 1] and [len(batch) for batch in runner.batches] == [2] * 3
    noise.may.set()
    assert set(finish(machine)) == {"drawing", 2, 3}


def test_a_batch_that_is_not_full_waits_for_noise_whatever_the_threads_do() -> None:
    def composed() -> list[list[float]]:
        runner = Doubling()
        machine = engine(runner, rows=16)

        def cell(index: int) -> Coroutine:
            noise = SeededNoise(index, (4, 8 * (index % 5), 64), torch.device("cpu"))
            for step in range(3):
                yield Draw(noise), Share(("first", index % 2, step), lambda _: steps(index % 2, 1))
                yield ask(index), Draw(noise)

        for index in range(7):
            machine.submit(index, cell(index))
        finish(machine)
        return [[number(request) for request in batch] for batch in runner.batches]

    first = composed()
    assert max(map(len, first)) == 7
    assert all(composed() == first for _ in range(10))


def test_draws_of_a_source_keep_their_order_however_many_draw() -> None:
    sources = [Slow() for _ in range(20)]
    for source in sources:
        source.may.set()

    def cell(source: Slow, start: float) -> Coroutine:
        return (yield tuple(Draw(source, start + index) for index in range(30)))

    machine = engine(Doubling(), rows=64)
    for index, source in enumerate(sources):
        machine.submit(index, cell(source, 100.0 * index))
    for index, one in finish(machine).items():
        expected = [100.0 * index + number for number in range(30)]
        assert [float(drawn) for drawn in one.result] == expected == sources[index].log


class Failing:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def draw(self, sigma: float | None = None, lower: float | None = None) -> torch.Tensor:
        raise self.error


def test_an_error_while_drawing_goes_to_its_asker() -> None:
    def catching() -> Coroutine:
        try:
            yield ask(1), Draw(Failing(KeyError("lost")))
        except KeyError as error:
            return str(error)

    machine = engine(Doubling(), rows=4)
    machine.submit("catching", catching())
    machine.submit("bad", asks(Draw(Failing(ValueError("no noise"))), ask(1)))
    machine.submit("nonsense", asks(Draw(None)))
    machine.submit("good", asks(Draw(seeded()), ask(2)))
    ended = finish(machine)
    assert ended["catching"].result == "'lost'" and str(ended["bad"].error) == "no noise"
    assert isinstance(ended["nonsense"].error, AttributeError) and ended["good"].result[1] == 4


def test_an_order_to_stop_while_drawing_is_not_swallowed() -> None:
    machine = engine(Doubling())
    machine.submit("cell", asks(Draw(Failing(SystemExit("enough")))))
    with pytest.raises(SystemExit, match="enough"):
        finish(machine)


def test_a_cancelled_cell_leaves_no_draw_behind() -> None:
    noise, begun, closed = Slow(), Slow(), []

    def cell(source: Slow) -> Coroutine:
        try:
            yield ask(1), Draw(source, 1.0), Draw(source, 2.0)
        finally:
            closed.append(source)

    def recipe() -> Coroutine:
        return (yield Draw(noise, 3.0))

    def waiting() -> Coroutine:
        yield Share("drawn", lambda _: recipe())

    machine = engine(Doubling(), rows=1)
    machine.submit("cell", cell(begun))
    machine.submit("sharing", waiting())
    machine.submit("other", steps(1, 2))
    machine.step()
    machine.step()
    for name in ("cell", "sharing"):
        machine.cancel(name)
    assert closed == [begun] and machine.in_flight == 1
    assert results(machine) == {"other": 4} and machine.step() == []
    begun.may.set()
    noise.may.set()
    machine.close()
    assert 2.0 not in begun.log  # the one that had begun was let finish


def test_shared_recipes_draw_too_and_once() -> None:
    noise = Slow()
    noise.may.set()

    def recipe() -> Coroutine:
        return (yield Draw(noise, 4.0))

    def cell() -> Coroutine:
        return (yield Share("noise", lambda _: recipe()))

    machine = engine(Doubling(), rows=4)
    for index in range(5):
        machine.submit(index, cell())
    assert set(map(float, (one.result for one in finish(machine).values()))) == {4.0}
    assert noise.log == [4.0]


def drawing_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("draw")}


@pytest.mark.parametrize("closed", [True, False])
def test_the_threads_end_with_the_engine(closed: bool) -> None:
    before = drawing_threads()
    machine = engine(Doubling(), rows=4)
    for index in range(4):
        machine.submit(index, asks(Draw(seeded())))
    finish(machine)
    started = drawing_threads() - before
    assert started
    if closed:
        machine.close()
        machine.submit("late", asks(Draw(seeded())))
        assert isinstance(finish(machine)["late"].error, RuntimeError)
    del machine
    gc.collect()
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()


def test_closing_ends_what_is_in_flight() -> None:
    noise, ends = Slow(), []

    def cell() -> Coroutine:
        try:
            yield ask(1), Draw(noise)
        finally:
            ends.append("closed")

    machine = engine(Doubling(), rows=1)
    machine.submit("begun", cell())
    machine.submit("waiting", steps(1, 1))
    machine.step()
    noise.may.set()
    machine.close()
    assert ends == ["closed"] and machine.in_flight == 0 and machine.step() == []


@pytest.mark.parametrize("error", [None, ValueError("not now"), SystemExit("enough")], ids=repr)
@pytest.mark.parametrize("whole", [False, True], ids=["cancel", "close"])
def test_who_does_not_want_to_end_keeps_nobody_from_it(whole: bool, error: BaseException | None) -> None:
    ends: list[str] = []

    def stubborn() -> Coroutine:
        try:
            yield Share("recipe", lambda _: recipe()), ask(1), ask(1)
        except GeneratorExit:
            if error:
                raise error from None
            yield ask(1)

    def recipe() -> Coroutine:
        try:
            yield ask(1), Draw(noise)
        finally:
            ends.append("recipe")
            raise KeyError("the second one")

    def docile() -> Coroutine:
        try:
            while True:
                yield ask(2)
        finally:
            ends.append("docile")

    before, noise, machine = drawing_threads(), Slow(), engine(Doubling(), rows=4)
    noise.may.set()
    machine.submit("stubborn", stubborn())
    machine.submit("docile", docile())
    machine.submit("waiting", steps(1, 1))
    machine.step()
    threads = drawing_threads() - before
    assert machine.waiting == 1 and threads
    raised, words = (type(error), str(error)) if error else (RuntimeError, "ignored GeneratorExit")
    with pytest.raises(raised, match=words):
        machine.close() if whole else machine.cancel("stubborn")
    assert ends == (["recipe", "docile"] if whole else ["recipe"])
    if whole:
        assert machine.in_flight == 0 and machine.step() == []
        assert not any(thread.is_alive() for thread in threads)
    else:
        assert ends_within(4, "waiting", machine) and machine.in_flight == 1
        machine.close()


class Cheap:
    """Answers as fast as can be, and remembers nothing."""

    def run(self, requests: list) -> list:
        return [NOTHING] * len(requests)


def test_memory_stays_flat_over_many_cells() -> None:
    machine = Engine(Cheap(), Capacity(torch.device("cpu"), 16), share_budget=2**16)
    row, ending = ask(1), last(1)

    def recipe(_: torch.Generator) -> Coroutine:
        return (yield row)

    def cell(index: int) -> Coroutine:
        yield Share(("own", index), recipe), Share("everyone's", recipe)
        return (yield ending)

    def through(start: int, end: int) -> None:
        for index in range(start, end):
            machine.submit(index, cell(index))
            while machine.waiting > 16:
                machine.step()
        finish(machine)

    through(0, 18_000)
    tracemalloc.start()
    through(18_000, 20_000)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 200_000  # 100 bytes a cell, shared answers that took the place of older ones included


class Coming(Later):
    """An answer that is there after so many looks."""

    def __init__(self, answer: float, looks: int) -> None:
        self.answer, self.looks = answer, looks

    @property
    def is_there(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def get(self) -> float:
        return self.answer


class Delaying(Doubling):
    """Decodes later, as a card does whose pictures are still being copied."""

    looks = 2

    def run(self, requests: list[Request]) -> list[Any]:
        answers = super().run(requests)
        if isinstance(requests[0], Decode):
            return [Coming(answer, self.looks) for answer in answers]
        return answers


def drawing(value: float, count: int) -> Coroutine:
    """A cell that ends with what comes later."""
    value = yield from steps(value, count)
    return (yield last(value))


@pytest.mark.parametrize("looks", [0, 1, 3, 10**9])
def test_answers_that_come_later_hold_nobody_up(looks: int) -> None:
    runner = Delaying()
    runner.looks = looks
    machine = engine(runner, rows=2)
    for index in range(6):
        machine.submit(index, drawing(1, 1 + index))
    assert results(machine) == {index: 2.0 ** (index + 2) for index in range(6)}
    kinds = [type(batch[0]) for batch in runner.batches]
    assert kinds.index(Decode) < len(kinds) - 1 - kinds[::-1].index(Predict)  # rows went on meanwhile


def test_who_is_cancelled_gets_no_late_answer() -> None:
    machine = engine(Delaying(), rows=2)
    for index in range(2):
        machine.submit(index, drawing(1, 1))
    machine.step()
    machine.step()
    machine.cancel(0)
    assert results(machine) == {1: 4.0}
    machine.submit(0, drawing(3, 1))
    machine.step()
    machine.step()
    machine.close()


def test_what_was_done_is_counted() -> None:
    machine = engine(Doubling(), rows=4)
    for index in range(6):
        machine.submit(index, drawing(index, 2))
    finish(machine)
    work = machine.accounts.work()
    rows, decoded = work.of("predict"), work.of("decode")
    assert (rows.rows, decoded.rows) == (12, 6) and rows.calls in (3, 4)
    assert rows.possible == 4 * rows.calls and work.occupancy == 12 / rows.possible
    assert rows.seconds > 0 and work.between > 0
    assert (work.shared_rows, work.again) == (0, 0)


def test_works_add_up() -> None:
    works = []
    for count in (1, 3):
        machine = engine(Doubling(), rows=4)
        machine.submit("cell", drawing(1, count))
        machine.submit("other", steps(1, count, weights="b"))
        finish(machine)
        works.append(machine.accounts.work())
    together = total(works)
    assert together.of("predict").rows == 8 and together.of("decode").calls == 2
    assert {kind.model for kind in together.tallies} == {"a", "b"}
    assert together.between == sum(work.between for work in works)
