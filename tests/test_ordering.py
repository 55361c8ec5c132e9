from collections import deque
from dataclasses import asdict, replace
from itertools import groupby, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.cell import Cell, Settings
from farm.costs import evaluations, first_pass, lengths
from farm.job import Vocabulary, load_job
from farm.ordering import TAIL, Order, coarse_wave, in_render_order
from farm.plan import compile_job
from farm.resolving import resolved
from farm.sampling import BUILT_IN

BASE = Settings("cats", "a cat", sampler="Euler", width=64, height=64)
VOCABULARY = Vocabulary(models={"cats": (), "dogs": ()}, plugins={})


def cells(*changes):
    """One cell for each mapping of settings."""
    asked = [resolved(asdict(BASE) | change, BUILT_IN) for change in changes]
    return [
        Cell(number, (number - 1,), settings, evaluations=evaluations(settings))
        for number, settings in enumerate(asked, 1)
    ]


def swept(**axes):
    return cells(*(dict(zip(axes, values)) for values in product(*axes.values())))


def column(ordered, *names):
    """Values of settings, each as often as it begins anew."""
    values = ([getattr(cell.settings, name) for name in names] for cell in ordered)
    return [value if len(names) > 1 else value[0] for value, _ in groupby(values)]


def numbers(ordered):
    return [cell.number for cell in ordered]


def test_what_shares_weights_size_and_length_stays_together():
    ordered = in_render_order(
        swept(
            steps=[5, 20],
            prompt=["a cat BREAK a hat", "a dog", "a hen BREAK a hat"],
            width=[64, 128],
            cfg_scale=[1, 7],
            precision=["fp32", "fp16"],
            model=["cats", "dogs"],
        )
    )
    assert len(column(ordered, "model", "precision")) == 4
    assert len(column(ordered, "model", "precision", "width")) == 8
    assert column(ordered[:12], "prompt") == ["a cat BREAK a hat", "a hen BREAK a hat"] * 2 + ["a dog"]
    assert column(ordered, "steps") == [20, 5] * 16


def test_the_longest_groups_come_first_and_stay_together(monkeypatch):
    monkeypatch.setattr("farm.ordering.TAIL", 0)
    ordered = in_render_order(
        cells(
            *({"seed": 1, "steps": steps} for steps in (5, 20)),
            *({"seed": 2, "steps": steps} for steps in (30, 3)),
            *({"seed": 3, "steps": steps} for steps in (4, 30)),
            *({"seed": 1, "steps": steps} for steps in (40, 1)),
        )
    )
    assert numbers(ordered) == [7, 2, 1, 8, 3, 4, 6, 5]


def test_what_starts_from_the_same_picture_stays_together(monkeypatch):
    """Though cells of other strengths share no first pass; the picture with the longest cells first."""
    axes = {"init_image": ["a", "b", "c"], "denoising_strength": [0.5, 0.9], "seed": [1, 2]}
    asked = [*swept(**axes), *swept(init_image=["b"], steps=[90]), *swept(seed=[3, 4], steps=[15])]
    ordered = in_render_order(replace(cell, number=number) for number, cell in enumerate(asked))
    assert column(ordered, "init_image", "steps")[0] == ["b", 90]  # at the end, all go by their length
    monkeypatch.setattr("farm.ordering.TAIL", 0)
    ordered = in_render_order(replace(cell, number=number) for number, cell in enumerate(asked))
    assert column(ordered, "init_image") == ["b", "a", "c", ""]
    assert column(ordered[:5], "steps", "denoising_strength") == [[90, 0.75], [20, 0.9], [20, 0.5]]


def test_what_nobody_knows_comes_first():
    ordered = in_render_order(swept(seed=[1, 2], sampler=["Euler", "DPM adaptive", "Heun"], steps=[150, 3]))
    assert column(ordered, "sampler") == ["DPM adaptive", "Heun", "Euler", "Heun", "Euler"]


def test_the_last_cells_go_by_their_length_whatever_their_group():
    ordered = in_render_order(swept(seed=range(200), steps=[20, 10]))
    whole, tail = ordered[: 400 - TAIL], ordered[400 - TAIL :]
    assert column(whole, "steps") == [20, 10] * (len(whole) // 2)
    assert column(tail, "steps") == [20, 10]
    assert column(whole, "seed") + column(tail, "seed")[: TAIL // 2] == list(range(200))


def batches(ordered, capacity):
    """Batches in which these cells are rendered on one device, each with two rows at a time."""
    left, flying, count = deque(cell.evaluations for cell in ordered), [], 0
    while left or flying:
        while left and len(flying) < capacity // 2:
            flying.append(left.popleft())
        flying = [evaluations - 1 for evaluations in flying if evaluations > 1]
        count += 1
    return count


@pytest.mark.parametrize(
    ("axes", "capacity"),
    [
        ({"sampler": ["Euler", "Heun", "DPM++ 2M"], "steps": [5, 10, 20, 40], "seed": range(8)}, 16),
        ({"seed": range(60), "steps": [10, 50]}, 16),
        ({"seed": range(600), "steps": [10, 50]}, 64),
        ({"seed": range(40), "sampler": ["Euler", "Heun", "LMS", "DPM2"], "steps": [5, 10, 20, 40]}, 64),
    ],
)
def test_batches_stay_full_to_the_end(axes, capacity):
    job = swept(**axes)
    ideal = 2 * sum(cell.evaluations for cell in job) / capacity
    by_group = sorted(job, key=lambda cell: (cell.settings.seed, -cell.evaluations))
    assert batches(in_render_order(job), capacity) <= 1.02 * ideal < batches(by_group, capacity)


PROMPTS = ["a cat", "a dog", "a cat BREAK a hat", "[a:b BREAK c:.5]", "x " * 80]
SWEEPS = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(["cats", "dogs", "hens"]),
            "precision": st.sampled_from(["auto", "fp32"]),
            "width": st.sampled_from([64, 128]),
            "prompt": st.sampled_from(PROMPTS),
            "cfg_scale": st.sampled_from([1.0, 7.0]),
            "seed": st.integers(1, 3),
            "steps": st.sampled_from([5, 10, 20]),
            "sampler": st.sampled_from(["Euler", "Heun", "DPM adaptive"]),
        }
    ),
    max_size=40,
)


def stays_together(ordered, key):
    """Whether cells of equal key are neighbours."""
    starts = [found for found, _ in groupby(ordered, key)]
    return len(starts) == len(set(starts))


@given(sweep=SWEEPS, chance=st.randoms(use_true_random=False), waves=st.integers(1, 3))
def test_the_order_is_one_of_the_cells_and_does_not_hang_on_how_they_come(sweep, chance, waves):
    job = cells(*sweep)

    def wave_of(cell):
        return cell.number % waves

    ordered = in_render_order(job, wave_of=wave_of)
    assert sorted(numbers(ordered)) == numbers(job)
    assert in_render_order(chance.sample(job, len(job)), wave_of=wave_of) == ordered
    assert [wave_of(cell) for cell in ordered] == sorted(map(wave_of, job))

    def weights(cell):
        return wave_of(cell), cell.settings.model, cell.settings.precision

    assert stays_together(ordered, weights)
    assert stays_together(ordered, lambda cell: (*weights(cell), cell.settings.width))


@given(sweep=SWEEPS)
def test_groups_stay_together_where_nothing_is_at_the_end(sweep):
    job = cells(*sweep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("farm.ordering.TAIL", 0)
        ordered = in_render_order(job)
    assert stays_together(ordered, lambda cell: first_pass(cell.settings))


@given(axes=st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_the_first_wave_has_every_fourth_value_and_the_last_the_second_every_second(axes):
    found = {at: coarse_wave(at, axes) for at in product(*map(range, axes))}
    for wave, stride in enumerate((4, 2, 1)):
        kept = [{*range(0, size, stride), size - 1} for size in axes]
        assert {at for at in found if found[at] <= wave} == set(product(*kept))


def compiled(folder, sweep):
    path = folder / "job.yaml"
    path.write_text(f"model: cats\nprompt: a cat\nsampler: Euler\n{sweep}", encoding="utf-8")
    return compile_job(load_job(path, VOCABULARY))


def test_a_coarse_plan_goes_wave_by_wave_and_back_is_what_it_was(tmp_path):
    plan = compiled(tmp_path, "sweep: {steps: 1-9, cfg_scale: [2, 4, 6]}")
    coarse = plan.in_order(Order.COARSE)
    assert [(wave, len(list(group))) for wave, group in groupby(coarse.cells, coarse.wave_of)] == [
        (0, 3 * 2), (1, 5 * 2 - 3 * 2), (2, 9 * 3 - 5 * 2),
    ]  # fmt: skip
    assert column(coarse.cells[:6], "steps") == [9, 5, 1]
    assert coarse.without({""}).cells == () and {plan.wave_of(cell) for cell in plan.cells} == {0}
    assert coarse.in_order(Order.FAST) == plan


def test_waves_take_weights_and_sizes_in_turns_so_that_what_is_loaded_is_used_on(tmp_path):
    coarse = compiled(tmp_path, "sweep: {model: [cats, dogs], width: [64, 128], seed: 1-9}").in_order(
        Order.COARSE
    )
    assert column(coarse.cells, "model") == ["cats", "dogs", "cats", "dogs"]
    assert column(coarse.cells, "model", "width") == [
        *(["cats", 64], ["cats", 128], ["dogs", 64], ["dogs", 128]),
        *(["dogs", 64], ["cats", 128], ["cats", 64]),
        *(["cats", 128], ["dogs", 64], ["dogs", 128]),
    ]


def test_rows_are_as_long_as_their_texts_need():
    def of(**changes):
        return lengths(resolved(asdict(BASE) | changes, BUILT_IN))

    assert of() == (1, 1) and of(cfg_scale=1.0) == (1,)
    assert of(prompt="a BREAK b", negative_prompt="c BREAK d BREAK e") == (3, 2)
    assert of(prompt="cat " * 75) == (1, 1) and of(prompt="cat " * 76) == (1, 2)
    assert of(prompt="(cat:1.2)'s 7! " * 19) == (1, 2)  # 76 of cat, 's, 7, !
    assert of(prompt="a AND b BREAK c") == (1, 2, 2)
    assert of(prompt="[a:b BREAK c:.5]") == (1, 2)
