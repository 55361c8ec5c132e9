import heapq
import random
from math import ceil, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.cluster.backlog import LARGEST_CHUNK, Backlog, Task
from farm.cluster.queue import BARREN_LIVES, DEATHS_ALONE, Queue


def tasks(count, weights=1, group=1, cost=1.0):
    """`count` tasks, in runs of equal weights, and in groups of `group` neighbours."""
    run = ceil(count / weights)
    return [Task(key, key, f"w{key // run}", key // group, cost) for key in range(count)]


def keys(attempts):
    return [attempt.task.key for attempt in attempts]


def queue_of(work, *workers):
    queue = Queue(work, workers)
    for worker in workers:
        queue.join(worker)
    return queue


def test_a_worker_keeps_its_weights_then_takes_unclaimed_ones_then_steals_from_the_longest():
    work = [Task(key, key, "abbbbcc"[key]) for key in range(7)]
    backlog = Backlog(work)
    take = [[task.key for task in backlog.take(*ask, 9.0, True)] for ask in [("x", 1), ("y", 1), ("z", 1)]]
    assert take == [[0], [1], [5]]  # each finds weights of its own
    assert [task.key for task in backlog.take("z", 1, 9.0, True)] == [6]  # the same weights first
    assert [task.key for task in backlog.take("z", 1, 9.0, True)] == [2]  # c is done, a too: b is the longest


def test_weights_are_only_changed_with_empty_hands():
    queue = queue_of([Task(1, 1, "a"), Task(2, 2, "a"), Task(3, 3, "b")], "x")
    first = queue.lease("x", 2)
    assert keys(first) == [1, 2]
    queue.finish(first[0].number)
    assert queue.lease("x", 2) == ()
    queue.finish(first[1].number)
    assert keys(queue.lease("x", 2)) == [3]


def test_the_claim_of_a_lost_worker_is_free_again():
    backlog = Backlog([Task(key, key, "aaaaabb"[key]) for key in range(7)])
    assert [task.key for task in backlog.take("x", 1, 9.0, True)] == [0]
    assert [task.key for task in backlog.take("y", 1, 9.0, True)] == [5]
    backlog.drop("y")
    assert [task.key for task in backlog.take("z", 1, 9.0, True)] == [6]  # unclaimed, though a is longer


def test_a_group_is_leased_together_even_past_what_was_wanted():
    queue = queue_of(tasks(40, group=5), "x", "y")
    assert keys(queue.lease("x", 3)) == [0, 1, 2, 3, 4]
    assert keys(queue.lease("y", 6)) == list(range(5, 15))


def test_a_long_group_is_cut():
    queue = queue_of(tasks(1000, group=1000), "x")
    assert len(queue.lease("x", 1)) == LARGEST_CHUNK


def in_waves(*waves):
    """Tasks in the order given; each wave is a word, each letter the weights of a task."""
    pairs = [(wave, weights) for wave, word in enumerate(waves) for weights in word]
    return [Task(key, key, weights, wave=wave) for key, (wave, weights) in enumerate(pairs)]


def taken(backlog, worker, wanted, allowance=99.0, switch=True):
    return [task.key for task in backlog.take(worker, wanted, allowance, switch)]


def test_a_wave_begins_when_nothing_of_the_one_before_is_left():
    backlog = Backlog(in_waves("aab", "ab"))
    assert taken(backlog, "x", 1) == [0]
    assert taken(backlog, "y", 5) == [2]  # a of the first wave is left
    assert taken(backlog, "y", 5, switch=False) == []  # though its weights come again in the second
    assert taken(backlog, "x", 5) == [1, 3]  # with the last of a wave, the next one begins
    assert taken(backlog, "y", 5) == [4]
    assert not backlog


def test_a_wave_that_begins_leaves_workers_their_weights():
    backlog = Backlog(in_waves("abc", "cbabab"))
    assert [taken(backlog, worker, 1) for worker in "xyz"] == [[0], [1], [2]]
    assert taken(backlog, "y", 1) == [4]
    assert taken(backlog, "z", 1) == [3]
    assert taken(backlog, "z", 1) == [5]  # c is done, a as long as b
    backlog.drop("x")
    backlog.drop("z")
    assert taken(backlog, "new", 1) == [7]  # nobody's now
    assert taken(backlog, "y", 9) == [6, 8]


def test_the_next_wave_is_given_only_as_far_as_there_is_room():
    backlog = Backlog(in_waves("aa", "aaaa"))
    assert taken(backlog, "x", 3) == [0, 1, 2]
    assert taken(Backlog(in_waves("aa", "aaaa")), "x", 9, allowance=4.0) == [0, 1, 2, 3]
    assert taken(Backlog(in_waves("aa", "bb", "aa")), "x", 9) == [0, 1]


def test_waves_come_in_their_order_and_groups_are_cut_by_them():
    work = [Task(key, key, "a", group=0, wave=wave) for key, wave in enumerate([1, 0, 1, 0, 3])]
    queue = queue_of(work, "x")
    assert keys(queue.lease("x", 1)) == [1, 3]
    assert keys(queue.lease("x", 1)) == [0, 2]
    assert keys(queue.lease("x", 1)) == [4]


@settings(max_examples=200, deadline=None)
@given(
    work=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(0, 2)), max_size=40),
    choices=st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("llfd"), st.integers(1, 9))),
)
def test_no_wave_overtakes_another_and_every_task_ends_once(work, choices):
    made = [Task(key, key, weights, group, wave=wave) for key, (wave, weights, group) in enumerate(work)]
    queue = queue_of(made, *"xyz")
    held = {worker: [] for worker in "xyz"}
    untouched, ended, usable = {task.key: task for task in made}, [], set("xyz")

    def lease(worker, wanted):
        attempts = queue.lease(worker, wanted)
        assert len({attempt.task.weights for attempt in (*attempts, *held[worker])}) <= 1
        fresh = [untouched.pop(key) for key in keys(attempts) if key in untouched]
        assert [task.wave for task in fresh] == sorted(task.wave for task in fresh)
        if fresh:
            assert max(task.wave for task in fresh) <= min((t.wave for t in untouched.values()), default=9)
        held[worker] += attempts

    def finish(worker):
        ended.extend(queue.finish(attempt.number).key for attempt in held[worker])
        held[worker].clear()

    for worker, action, number in choices:
        if worker not in usable:
            continue
        if action == "l":
            lease(worker, number)
        elif action == "f":
            finish(worker)
        else:
            held[worker].clear()
            loss = queue.lose(worker)
            ended.extend(task.key for task in loss.condemned)
            usable.discard(worker) if loss.set_aside else queue.join(worker)
    while usable and queue.unfinished:
        for worker in sorted(usable):
            lease(worker, 4)
            finish(worker)
    if usable:
        assert sorted(ended) == list(range(len(made)))


def test_nobody_holds_more_than_an_even_share_of_what_is_left():
    queue = queue_of(tasks(30), "x", "y", "z")
    held = {worker: len(queue.lease(worker, 100)) for worker in "xyz"}
    assert held == {"x": 10, "y": 10, "z": 10}


def test_shares_go_by_cost():
    work = [Task(key, key, cost=10.0 if key < 4 else 1.0) for key in range(44)]
    queue = queue_of(work, "x", "y")
    assert keys(queue.lease("x", 100)) == [0, 1, 2, 3]
    assert len(queue.lease("y", 100)) == 40


def test_a_late_result_of_a_lost_attempt_is_not_taken():
    queue = queue_of(tasks(1), "x", "y")
    (lost,) = queue.lease("x", 1)
    queue.lose("x")
    (current,) = queue.lease("y", 1)
    assert queue.finish(lost.number) is None
    assert queue.unfinished == 1
    assert queue.finish(current.number) is current.task
    assert queue.finish(current.number) is None
    assert queue.unfinished == 0


def test_what_a_lost_worker_held_is_leased_again_in_halves_and_to_empty_hands_only():
    queue = queue_of(tasks(20), "x", "y")
    assert keys(queue.lease("x", 7)) == list(range(7))
    busy = queue.lease("y", 1)
    loss = queue.lose("x")
    assert (loss.put_back, loss.condemned, loss.set_aside) == (7, (), False)
    queue.join("x")
    assert keys(queue.lease("y", 1)) == [8]  # it holds something, so it gets no suspects
    queue.finish(busy[0].number)
    assert keys(queue.lease("x", 7)) == [9]  # having finished nothing, it is tried on untouched work
    assert queue.lease("x", 7) == ()  # and its hands must be empty before it gets suspects


def test_suspects_are_not_mixed_with_anything():
    queue = queue_of(tasks(8), "x", "y")
    queue.lease("x", 4)
    queue.lose("x")
    half = queue.lease("y", 4)
    assert keys(half) == [0, 1]
    assert queue.lease("y", 4) == ()  # though there is untouched work
    queue.finish(half[0].number)
    assert queue.lease("y", 4) == ()
    queue.finish(half[1].number)
    assert keys(queue.lease("y", 4)) == [2, 3]


def test_a_task_is_not_tried_again_where_it_died_alone_while_others_live():
    queue = queue_of(tasks(1), "x", "y")
    assert keys(queue.lease("x", 1)) == [0]
    assert not queue.lose("x").condemned
    queue.join("x")
    assert queue.lease("x", 1) == ()
    assert keys(queue.lease("y", 1)) == [0]
    assert not queue.lose("y").condemned
    assert keys(queue.lease("x", 1)) == [0]  # now there is nobody else
    assert [task.key for task in queue.lose("x").condemned] == [0]
    assert queue.unfinished == 0


def test_a_worker_that_only_dies_is_set_aside_and_condemns_nothing():
    queue = queue_of(tasks(100), "good", "broken")
    for life in range(BARREN_LIVES):
        assert queue.lease("broken", 1)
        loss = queue.lose("broken")
        assert loss.set_aside is (life == BARREN_LIVES - 1)
        assert not loss.condemned
        queue.join("broken") if not loss.set_aside else None
    assert queue.usable == 1
    assert drain(queue, "good") == set(range(100))


def test_the_last_worker_is_not_blamed_for_its_suspects():
    queue = queue_of(tasks(6), "x")
    (first,) = queue.lease("x", 1)
    queue.finish(first.number)
    done, condemned = run_with_poison(queue, ["x"], poison=set(range(1, 6)), wanted=4)
    assert (done, condemned) == (set(), {1, 2, 3, 4, 5})


def drain(queue, worker):
    done = set()
    while attempts := queue.lease(worker, 4):
        done.update(queue.finish(attempt.number).key for attempt in attempts)
    return done


def run_with_poison(queue, workers, poison, wanted):
    """Renders in order; a poisonous task kills its worker when its turn comes."""
    done, condemned, usable = set(), set(), list(workers)
    while queue.unfinished:
        assert usable, "every worker was set aside"
        for worker in list(usable):
            for attempt in queue.lease(worker, wanted):
                if attempt.task.key in poison:
                    loss = queue.lose(worker)
                    condemned.update(task.key for task in loss.condemned)
                    usable.remove(worker) if loss.set_aside else queue.join(worker)
                    break
                done.add(queue.finish(attempt.number).key)
    return done, condemned


@given(
    count=st.integers(2, 60),
    poison=st.integers(0, 59),
    workers=st.integers(1, 5),
    wanted=st.integers(1, 64),
    group=st.integers(1, 7),
)
def test_a_poisonous_task_never_condemns_its_neighbours(count, poison, workers, wanted, group):
    names = [f"worker {index}" for index in range(workers)]
    queue = queue_of(tasks(count, group=group), *names)
    done, condemned = run_with_poison(queue, names, {poison % count}, wanted)
    assert condemned == {poison % count}
    assert done == set(range(count)) - condemned


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(1, 40),
    weights=st.integers(1, 4),
    group=st.integers(1, 6),
    choices=st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("lflflld"), st.integers(1, 9))),
)
def test_whatever_happens_every_task_ends_once_and_is_tried_a_bounded_number_of_times(
    count, weights, group, choices
):
    queue = queue_of(tasks(count, weights, group), *"xyz")
    held = {worker: [] for worker in "xyz"}
    ended, tries, usable = [], dict.fromkeys(range(count), 0), set("xyz")

    def lease(worker, wanted):
        for attempt in queue.lease(worker, wanted):
            tries[attempt.task.key] += 1
            held[worker].append(attempt)

    def finish(worker):
        attempt = held[worker].pop()
        assert queue.finish(attempt.number) is attempt.task
        ended.append(attempt.task.key)

    def die(worker):
        loss = queue.lose(worker)
        assert loss.put_back + len(loss.condemned) == len(held[worker])
        ended.extend(task.key for task in loss.condemned)
        stale, held[worker] = held[worker], []
        assert not any(queue.finish(attempt.number) for attempt in stale)
        usable.discard(worker) if loss.set_aside else queue.join(worker)

    for worker, action, number in choices:
        if worker in usable:
            if action == "l":
                lease(worker, number)
            elif action == "f" and held[worker]:
                finish(worker)
            elif action == "d":
                die(worker)
        in_hand = [attempt.task.key for attempts in held.values() for attempt in attempts]
        assert len(ended) + queue.unfinished == count
        assert len(in_hand) == len(set(in_hand))
        assert not set(in_hand) & set(ended)
    while usable and queue.unfinished:
        for worker in sorted(usable):
            lease(worker, 4)
            while held[worker]:
                finish(worker)
    if usable:
        assert sorted(ended) == list(range(count))
    assert max(tries.values()) <= 1 + ceil(log2(count + 1)) + DEATHS_ALONE


@pytest.mark.parametrize(("workers", "deadly"), [(4, 0.0), (2000, 0.0), (2000, 0.0005)])
def test_a_simulated_farm_renders_everything_and_finishes_together(workers, deadly):
    """100,000 cells of twelve checkpoints on thousands of workers of unequal speed, some of which die."""
    chance = random.Random(7)
    work = [
        Task(key, key, f"w{key * 12 // 100_000}", key // 8, chance.choice([1, 2, 5]))
        for key in range(100_000)
    ]
    names = [f"worker {index}" for index in range(workers)]
    speed = {name: chance.uniform(0.8, 1.2) for name in names}
    queue = queue_of(work, *names)
    ended, rerendered, lost = 0, 0, 0
    ready = [(0.0, name) for name in names]
    last = {name: 0.0 for name in names}
    held = dict.fromkeys(names, ())
    while queue.unfinished:
        now, name = heapq.heappop(ready)
        if held[name] and chance.random() < deadly * len(held[name]):
            loss = queue.lose(name)
            ended += len(loss.condemned)
            rerendered += loss.put_back
            lost += 1
            queue.join(name)
        else:
            ended += sum(queue.finish(attempt.number) is not None for attempt in held[name])
        last[name] = now if held[name] else last[name]
        held[name] = queue.lease(name, 16)
        cost = sum(attempt.task.cost for attempt in held[name])
        heapq.heappush(ready, (now + (cost / speed[name] or 1.0), name))
    ideal = sum(task.cost for task in work) / sum(speed.values())
    assert ended == 100_000
    assert rerendered <= lost * 31
    assert max(last.values()) <= ideal + (1 + 5 * (deadly > 0)) * 31 * 5 / 0.8
