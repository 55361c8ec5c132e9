import pytest

from farm.render.queue import PATIENCE, Queue, Row
from farm.render.requests import Open, Request, Weights
from farm.render.task import Task
from tests.render.arithmetic import ask, last, number


def four(key: object) -> int:
    return 4


def task(order: int, is_shared: bool = False) -> Task:
    return Task(order, (_ for _ in ()), order, is_shared)


def waiting(*requests: Request) -> Queue:
    queue = Queue()
    for order, request in enumerate(requests):
        queue.add(task(order), 0, request)
    return queue


def values(rows: list[Row]) -> list[float]:
    return [number(row.request) for row in rows]


def test_the_fullest_batch_goes_first_and_in_order() -> None:
    queue = waiting(ask(1, "a"), ask(2, "b"), ask(3, "b"), last(4, "a"))
    assert [values(queue.take(four)) for _ in range(4)] == [[2, 3], [1], [4], []]


def test_of_equally_full_batches_the_oldest_task_goes_first() -> None:
    queue = waiting(ask(1, "b"), ask(2, "a"))
    assert values(queue.take(four)) == [1]


def test_older_tasks_first_though_they_ask_later() -> None:
    queue = Queue()
    for order in (3, 1, 2):
        queue.add(task(order), 0, ask(order))
    queue.add(task(9, is_shared=True), 0, ask(9))
    assert values(queue.take(four)) == [9, 1, 2, 3]


def test_what_prepares_goes_first_and_does_not_count_as_full() -> None:
    opening = Open(Weights("a"))
    queue = waiting(*(ask(n) for n in range(4)), opening)
    assert waiting(opening).fullness(four) == 0
    assert [row.request for row in queue.take(four)] == [opening]


@pytest.mark.parametrize(("rows", "fullness"), [(0, 0), (1, 0.25), (4, 1), (9, 1)])
def test_fullness_is_of_the_next_batch(rows: int, fullness: float) -> None:
    queue = waiting(*(ask(n) for n in range(rows)))
    assert queue.fullness(four) == fullness and len(queue) == rows


def test_patience_ends() -> None:
    queue, taken = waiting(ask(-1, "thin")), []
    for _ in range(PATIENCE + 2):
        for order in range(4):
            queue.add(task(order), 0, ask(order))
        taken.append(values(queue.take(four)))
    assert taken.index([-1]) == PATIENCE


def test_a_failed_batch_comes_again_in_halves_before_anything_else() -> None:
    queue = waiting(*(ask(n) for n in range(5)), Open(Weights("a")))
    queue.take(four)
    rows = queue.take(lambda _: 5)
    queue.retry_in_halves(rows)
    queue.add(task(0, is_shared=True), 0, ask(7))
    assert [values(queue.take(lambda _: 5)) for _ in range(3)] == [[0, 1], [2, 3, 4], [7]]


def test_halves_respect_a_limit_lowered_since() -> None:
    queue = waiting(*(ask(n) for n in range(8)))
    queue.retry_in_halves(queue.take(lambda _: 8))
    assert [values(queue.take(lambda _: 3)) for _ in range(4)] == [[0, 1, 2], [3], [4, 5, 6], [7]]
    assert queue.take(four) == [] and len(queue) == 0


def test_discarding_a_task_takes_its_rows_out_everywhere() -> None:
    queue, leaving, staying = Queue(), task(1), task(2)
    for one, base in ((leaving, 10), (staying, 20)):
        queue.add(one, 0, ask(base))
        queue.add(one, 1, ask(base + 1))
    queue.retry_in_halves(queue.take(lambda _: 2))
    queue.add(leaving, 2, last(1))
    queue.discard(leaving)
    assert [values(queue.take(four)) for _ in range(2)] == [[20, 21], []]
