import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from farm.cell import Cell, Settings
from farm.errors import BadInput
from farm.job import Vocabulary, load_job
from farm.layout import Layout
from farm.plan import Plan, compile_job

VOCABULARY = Vocabulary(models={"cats": (), "dogs": ()}, plugins={})


@pytest.fixture
def compiled(tmp_path):
    def compiled(text, **base):
        lines = [f"{name}: {value}" for name, value in ({"model": "cats", "prompt": "a cat"} | base).items()]
        path = tmp_path / "job.yaml"
        path.write_text("\n".join([*lines, text]), encoding="utf-8")
        return compile_job(load_job(path, VOCABULARY))

    return compiled


def test_keeps_what_the_job_says_at_its_top_and_no_axis_sets(compiled):
    plan = compiled("sweep: {sampler: [Euler a, DPM adaptive], cfg_scale: [1, 7]}", steps=10, cfg_scale=3)
    assert plan.asked == {"model": "cats", "prompt": "a cat", "steps": 10}
    assert {cell.settings.steps for cell in plan.cells} == {10, 20}  # DPM adaptive takes no notice
    searched = compiled("sweep: {replace: {cat: [cat, dog]}}", negative_prompt="blurry", evaluations=8)
    assert searched.asked == {"model": "cats", "evaluations": 8}


def by_number(plan):
    return sorted(plan.cells, key=lambda cell: cell.number)


def column(plan, name):
    return [getattr(cell.settings, name) for cell in by_number(plan)]


def test_cells_are_numbered_in_the_order_of_the_axes(compiled):
    plan = compiled("sweep: {steps: [20, 5], sampler: [Heun, Euler]}")
    cells = by_number(plan)
    assert [cell.number for cell in cells] == [1, 2, 3, 4]
    assert [cell.coordinates for cell in cells] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [(cell.settings.steps, cell.settings.sampler) for cell in cells] == [
        (20, "Heun"), (20, "Euler"), (5, "Heun"), (5, "Euler"),
    ]  # fmt: skip
    for cell in cells:
        titles = [axis.values[index].title for axis, index in zip(plan.axes, cell.coordinates)]
        assert titles == [str(cell.settings.steps), cell.settings.sampler]


def test_a_job_without_a_sweep_is_one_cell(compiled):
    plan = compiled("")
    settings = Settings("cats", "a cat", schedule="uniform", eta=1.0)  # what automatic is for Euler a
    assert plan.cells == (Cell(1, (), settings, evaluations=20),)
    assert (plan.name, plan.axes, plan.layout) == ("job", (), Layout())
    assert plan.job_yaml.startswith("name: job\n")


def test_axes_set_several_settings_and_search_last(compiled):
    plan = compiled(
        "negative_prompt: no cat\n"
        "sweep:\n"
        "  replace: {cat: [hen, owl]}\n"
        "  look: [{title: A, steps: 3}, {title: B, prompt: two cats, cfg_scale: 2}]\n"
    )
    assert column(plan, "prompt") == ["a hen", "two hens", "a owl", "two owls"]
    assert column(plan, "negative_prompt") == ["no hen", "no hen", "no owl", "no owl"]
    assert column(plan, "steps") == [3, 20, 3, 20]
    assert column(plan, "cfg_scale") == [7.0, 2.0, 7.0, 2.0]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("{steps: 5}", "10E 10H 20E 20H"),
        ("{steps: 5.0, sampler: k_heun}", "5E 10E 10H 20E 20H"),
        ("{steps: '> 5', sampler: [Heun, LMS]}", "5E 5H 10E 20E"),
        ("{steps: '>=10'}", "5E 5H"),
        ("{steps: '!= 10'}", "10E 10H"),
        ("{steps: '== 10'}", "5E 5H 20E 20H"),
        ("{steps: ['< 6', 20]}", "10E 10H"),
        ("{steps: '< 6, 20'}", "10E 10H"),
        ("{steps: 6-15}", "5E 5H 20E 20H"),
        ("{steps: 5-20 (+15)}", "10E 10H"),
        ("{look: none, steps: 5}", "5E 5H 10E 10H 20E 20H"),
        ("{model: dogs}", "5E 5H 10E 10H 20E 20H"),
        ("{prompt: a cat, sampler: Euler}", "5H 10H 20H"),
    ],
)
def test_skip_rules(compiled, rule, kept):
    looks = "[{title: one, seed: 3}, {title: none, seed: 4}]"
    sweep = f"sweep: {{steps: [5, 10, 20], sampler: [Euler, Heun], look: {looks}}}"
    plan = compiled(f"{sweep}\nskip: [{rule}, {{look: none}}]")
    assert [f"{cell.settings.steps}{cell.settings.sampler[0]}" for cell in by_number(plan)] == kept.split()
    assert [cell.number for cell in by_number(plan)] == list(range(1, len(plan.cells) + 1))


def test_skip_by_the_title_of_a_value_among_a_settings_values(compiled):
    plan = compiled(
        "sweep: {sampler: [Euler, {title: slow, sampler: Euler, steps: 50}], replace: {cat: [cat, dog]}}\n"
        "skip: [{sampler: slow, replace cat: dog}]"
    )
    cells = [(cell.settings.steps, cell.settings.prompt) for cell in by_number(plan)]
    assert cells == [(20, "a cat"), (20, "a dog"), (50, "a cat")]


def test_everything_skipped(compiled):
    with pytest.raises(BadInput, match=r"job\.yaml:4: skip: leaves no cell"):
        compiled("sweep: {steps: [5, 10]}\nskip: [{steps: '>= 1'}]")


@pytest.mark.parametrize(
    ("text", "evaluations", "rows", "shared", "texts"),
    [
        ("steps: 10", 10, 20, 0, 2),
        ("steps: 10\ncfg_scale: 1", 10, 10, 0, 1),
        ("steps: 10\ncfg_scale: 0", 10, 10, 0, 1),
        ("steps: 10\nsampler: Heun", 19, 38, 0, 2),
        ("steps: 10\nnegative_prompt: a cat", 10, 19, 1, 1),
        # the second and third cell's first rows, two each, are those of the first
        ("steps: 10\nsweep: {sampler: [Euler, LMS, Heun]}", 39, 74, 4, 2),
        # 1 has no row of the negative prompt to share
        ("steps: 10\nsweep: {cfg_scale: [1, 3, 5]}", 30, 47, 3, 2),
        ("steps: 10\nsweep: {seed: [1, 2]}", 20, 40, 0, 2),
        ("steps: 10\nsweep: {width: [64, 128]}", 20, 40, 0, 2),
        ("steps: 10\nsweep: {clip_skip: [1, 2]}", 20, 40, 0, 4),
        ("steps: 10\nsweep: {model: [cats, dogs]}", 20, 40, 0, 4),
        # the negative prompt's first row serves both
        ("steps: 10\nsweep: {prompt: [a, b]}", 20, 39, 1, 3),
        # seven evaluations of ten have two rows
        ("steps: 10\nguidance_stop: 0.7", 10, 17, 0, 2),
        # scale 1 is the same picture, and its one row at the start is the others' too
        ("steps: 10\nguidance_stop: 0\nsweep: {cfg_scale: [1, 3, 5]}", 10, 10, 0, 1),
        ("steps: 10\nsweep: {guidance_stop: [0.5, 1]}", 20, 33, 2, 2),
        ("steps: 10\nsweep: {token_merging_ratio: [0, 0.5]}", 20, 40, 0, 2),
        ("steps: 10\nsweep: {deepcache_interval: [1, 2, 3]}", 30, 58, 2, 2),
        # the same picture twice is one picture
        ("steps: 10\nsweep: {seed: [1, 1]}", 10, 20, 0, 2),
    ],
)
def test_what_a_plan_costs(compiled, text, evaluations, rows, shared, texts):
    plan = compiled(text)
    assert (plan.evaluations(), plan.rows(), plan.shared_rows(), plan.text_encodings()) == (
        evaluations, rows, shared, texts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shallow"),
    [
        ("steps: 10", 0),
        ("steps: 10\ndeepcache_interval: 2", 2 * 5),
        ("steps: 10\ndeepcache_interval: 3", 2 * 6),
        ("steps: 10\ndeepcache_interval: 3\ncfg_scale: 1", 6),
        ("steps: 10\ndeepcache_interval: 99", 2 * 9),
        ("steps: 10\nsampler: Heun\ndeepcache_interval: 2", 2 * 9),
        ("steps: 10\ndeepcache_interval: 3\nguidance_stop: 0.5", 2 * 3 + 3),
        ("steps: 10\nsweep: {deepcache_interval: [1, 2, 2, 3]}", 2 * (5 + 6)),
    ],
)
def test_rows_through_the_shallow_blocks_are_counted_apart(compiled, text, shallow):
    assert compiled(text).shallow_rows() == shallow


def test_pictures_whose_rows_batch_together_stand_together(compiled):
    plan = compiled("sweep: {seed: [1, 2], token_merging_ratio: [0, 0.5], deepcache_interval: [1, 2, 3]}")
    settings = [cell.settings for cell in plan.cells]
    kinds = [(one.token_merging_ratio, one.deepcache_interval > 1) for one in settings]
    assert [key for key, _ in groupby(kinds)] == [(0, False), (0, True), (0.5, False), (0.5, True)]


def test_equal_settings_are_two_cells_with_one_key(compiled):
    plan = compiled("sweep: {seed: [1, 2, 1]}").keyed({"cats": "f" * 64})
    first, second, third = by_number(plan)
    assert first.key == third.key != second.key
    assert len({first.number, second.number, third.number}) == 3
    assert [cell.number for cell in plan.without({first.key}).cells] == [second.number]


@pytest.mark.parametrize(
    ("text", "pictures"),
    [
        ("steps: 3\nsweep: {guidance_stop: '0.5-0.6 [6]', seed: [1, 2]}", 2),
        ("steps: 40\nsweep: {guidance_stop: '0.5-0.6 [6]', seed: [1, 2]}", 10),
        ("steps: 3\nsweep: {deepcache_interval: 1-8}", 3),
    ],
)
def test_approximations_that_come_to_the_same_have_one_key(compiled, text, pictures):
    plan = compiled(text).keyed({"cats": "f" * 64})
    assert len({cell.key for cell in plan.cells}) == pictures


def test_keys_follow_the_weights_not_their_name(compiled):
    plan = compiled("sweep: {model: [cats, dogs]}")
    same = plan.keyed({"cats": "1" * 64, "dogs": "1" * 64})
    other = plan.keyed({"cats": "1" * 64, "dogs": "2" * 64})
    assert len({cell.key for cell in same.cells}) == 1
    assert len({cell.key for cell in other.cells}) == 2


def test_a_large_plan_shares_what_it_can(compiled):
    plan = compiled("sweep: {cfg_scale: 1-10 (+.1), seed: 1-30, replace: {cat: [cat, dog]}, steps: [5, 10]}")
    assert len(plan.cells) == 91 * 30 * 2 * 2
    assert len({id(cell.settings.prompt) for cell in plan.cells}) == 2
    assert len({id(cell.settings.cfg_scale) for cell in plan.cells}) == 91
    assert isinstance(plan, Plan)


def test_planning_needs_no_heavy_library():
    heavy = "{'torch', 'ray', 'numpy', 'pandas', 'diffusers', 'transformers', 'PIL'}"
    code = f"import sys, farm.plan; print(sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).parent.parent
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
