import tracemalloc

import pytest
import torch

from farm.render.capacity import Capacity
from farm.render.engine import Engine
from farm.render.noise import SeededNoise
from farm.render.requests import Coroutine, Draw, Share
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
