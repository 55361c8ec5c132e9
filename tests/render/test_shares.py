from collections.abc import Callable, Hashable

import pytest
import torch

from farm.render.engine import Engine
from farm.render.requests import Coroutine, Share
from farm.render.shares import OBJECT, Shares, apart, generator_for, size_of
from farm.render.task import Task
from farm.render.told import Conditioning
from tests.render.arithmetic import Doubling, ask, asks, engine, finish, number, shared, steps


def asked(runner: Doubling, value: float) -> int:
    return sum(number(request) == value for batch in runner.batches for request in batch)


def test_runs_once_and_gives_all_the_same_object() -> None:
    def recipe() -> Coroutine:
        return [(yield ask(5))]

    machine = engine(runner := Doubling(), rows=4)
    for index in range(20):
        machine.submit(index, asks(shared("k", recipe), shared("k", recipe)))
    ended = finish(machine)
    machine.submit("late", asks(shared("k", recipe)))
    ended |= finish(machine)
    assert asked(runner, 5) == 1
    assert len({id(answer) for one in ended.values() for answer in one.result}) == 1
    assert machine.accounts.shared_answers == 40


def test_generator_comes_of_the_key_and_not_of_the_asker() -> None:
    def drawing(generator: torch.Generator) -> Coroutine:
        yield from ()
        return torch.randn(3, generator=generator)

    def draws(*keys: str, disturb: int) -> list[torch.Tensor]:
        torch.manual_seed(disturb)
        torch.rand(disturb)
        machine = engine(Doubling())
        for key in keys:
            machine.submit(key, asks(Share(key, drawing)))
        return [one.result[0] for _, one in sorted(finish(machine).items())]

    one, two = draws("a", "b", disturb=1), draws("b", "a", disturb=2)
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1]) and not torch.equal(one[0], one[1])
    assert generator_for(("k", 1)).initial_seed() == generator_for(("k", 1)).initial_seed()


def test_waiters_hold_no_room_in_a_batch() -> None:
    machine = engine(runner := Doubling(), rows=4)
    for index in range(20):
        machine.submit(index, asks(shared("long", lambda: steps(1, 50))))
    for index in range(3):
        machine.submit(f"own {index}", steps(1, 5))
    ended = []
    for _ in range(6):
        ended += [one.name for one in machine.step()]
    assert ended == ["own 0", "own 1", "own 2"]
    assert [len(batch) for batch in runner.batches[:5]] == [4] * 5


def test_shared_rows_go_before_the_rows_of_older_cells() -> None:
    machine = engine(runner := Doubling(), rows=2)
    machine.submit("cell", asks(*(ask(1) for _ in range(3)), shared("k")))
    machine.step()
    assert 5 in [number(request) for request in runner.batches[0]]
    finish(machine)


def circle(*keys: str) -> Callable[[], Coroutine]:
    """A recipe that asks for the next key, whose recipe asks for the next, and round again."""

    def recipe() -> Coroutine:
        return (yield shared(keys[1 % len(keys)], circle(*keys[1:], keys[0])))

    return recipe


@pytest.mark.parametrize("keys", [("a",), ("a", "b"), ("a", "b", "c", "d")], ids=len)
def test_a_circle_is_an_error(keys: tuple[str, ...]) -> None:
    machine = engine(Doubling())
    for index in range(3):
        machine.submit(index, asks(shared(keys[0], circle(*keys))))
    machine.submit("good", steps(1, 2))
    ended = finish(machine, at_most=20)
    assert all(isinstance(ended[index].error, RecursionError) for index in range(3))
    assert "wait for each other" in str(ended[0].error) and ended["good"].result == 4


def test_recipes_may_ask_for_recipes_however_deep() -> None:
    def nested(depth: int) -> Callable[[], Coroutine]:
        def recipe() -> Coroutine:
            return (yield shared(depth - 1, nested(depth - 1)) if depth else ask(5))

        return recipe

    machine = engine(runner := Doubling())
    machine.submit("one", asks(shared(2000, nested(2000))))
    machine.submit("two", asks(shared(1000, nested(1000))))
    assert [one.result for one in finish(machine).values()] == [(10,), (10,)] and asked(runner, 5) == 1


def test_a_failure_reaches_each_waiter_and_is_not_kept() -> None:
    runner = Doubling(poisoned=(5.0,))
    machine = engine(runner)
    for index in range(3):
        machine.submit(index, asks(shared("k"), ask(index)))
    ended = finish(machine)
    assert all("cannot double [5.0]" in str(ended[index].error) for index in range(3))
    tried = asked(runner, 5)
    runner.poisoned = ()
    machine.submit("later", asks(shared("k")))
    assert finish(machine)["later"].result == (10,) and asked(runner, 5) == tried + 1


@pytest.mark.parametrize("unusable", [Share([], lambda _: steps(1, 1)), Share("k", lambda: steps(1, 1))])
def test_a_share_that_cannot_start_fails_its_asker_only(unusable: Share) -> None:
    machine = engine(Doubling())
    machine.submit("bad", asks(unusable))
    machine.submit("good", asks(shared("k")))
    ended = finish(machine)
    assert isinstance(ended["bad"].error, TypeError) and ended["good"].result == (10,)


def two_waiting(runner: Doubling) -> tuple[Engine, list[str]]:
    """An engine in which `one` and `two` wait for an outer recipe that waits for an inner one."""
    closed: list[str] = []

    def outer() -> Coroutine:
        try:
            return (yield shared("inner", lambda: steps(1, 8)))
        finally:
            closed.append("outer")

    machine = engine(runner, rows=2)
    for name in ("one", "two"):
        machine.submit(name, asks(shared("outer", outer)))
    machine.step()
    return machine, closed


def test_cancelling_one_of_two_waiters_lets_the_recipe_go_on() -> None:
    machine, closed = two_waiting(Doubling())
    machine.cancel("one")
    assert closed == [] and [one.result for one in finish(machine).values()] == [(256,)]


def test_cancelling_the_last_waiter_cancels_the_recipe_and_what_it_waits_for() -> None:
    machine, closed = two_waiting(runner := Doubling())
    machine.cancel("one")
    machine.cancel("two")
    batches = len(runner.batches)
    assert closed == ["outer"] and machine.in_flight == 0
    assert machine.step() == [] and len(runner.batches) == batches
    machine.submit("again", asks(shared("inner", lambda: steps(1, 8))))
    assert finish(machine)["again"].result == (256,)


def test_a_waiter_can_be_cancelled_after_its_recipe_has_answered() -> None:
    machine = engine(Doubling(), rows=1)
    machine.submit("cell", asks(shared("k"), ask(1), ask(2)))
    machine.step()  # answers the shared row
    machine.cancel("cell")
    assert machine.in_flight == 0 and machine.step() == []


def test_time_of_a_recipe_is_that_of_those_who_waited() -> None:
    machine = engine(Doubling())
    for index in range(4):
        machine.submit(index, asks(shared("k", lambda: steps(1, 30))))
    seconds = [one.seconds for one in finish(machine).values()]
    assert min(seconds) > 0 and len(set(seconds)) == 1


def test_the_budget_lets_the_longest_unasked_go() -> None:
    tensor = torch.zeros(1000)
    shares = Shares(budget=3 * size_of(tensor))
    for key in "abc":
        shares.keep(key, tensor)
    assert shares.answer("a")[1]
    shares.keep("d", tensor)
    assert [key for key in "abcd" if shares.answer(key)[1]] == ["a", "c", "d"]
    shares.keep("huge", torch.zeros(10_000))
    assert not any(shares.answer(key)[1] for key in [*"abcd", "huge"])
    shares.keep("small", "text")
    assert shares.answer("small") == ("text", True)


def test_sizes_count_tensors_and_objects() -> None:
    assert size_of(torch.zeros(8)) == 32 + OBJECT
    assert size_of((torch.zeros(8), [torch.zeros(2, 2)], "text")) == 48 + 5 * OBJECT


def test_an_answer_does_not_keep_its_batch() -> None:
    batch = torch.arange(64.0).reshape(16, 4)
    whole = apart((batch[3], [batch[5]], batch))
    assert torch.equal(whole[0], batch[3]) and whole[0].untyped_storage().nbytes() == 16
    assert whole[1][0].untyped_storage().nbytes() == 16 and whole[2] is batch
    named = apart(Conditioning(batch[3]))
    assert isinstance(named, Conditioning) and named.pooled is None
    assert torch.equal(named.states, batch[3]) and named.states.untyped_storage().nbytes() == 16


def test_shared_recipes_are_served_in_an_order_of_their_own() -> None:
    """Whoever asks first, which can hang on threads."""

    def orders(keys: list[str]) -> dict[Hashable, int]:
        shares, asker = Shares(0), Task("cell", asks(), 0)
        started = [shares.wait(asker, slot, Share(key, lambda _: asks())) for slot, key in enumerate(keys)]
        return {task.name: task.order for task in started if task is not None}

    assert orders(["a", "b", "c"]) == orders(["c", "a", "b"])
    assert len(set(orders(["a", "b", "c"]).values())) == 3
