import csv
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.axes import Axis, AxisValue
from farm.cell import SETTING_NAMES
from farm.job import Vocabulary, load_job
from farm.plan import compile_job
from farm.results.index import neutral, restored, write_index
from farm.results.journal import Record
from tests.results.samples import HASH, make_plan, score

SCORES = [score(name) for name in ("sharpness", "error", "steps", "score", "flagged")]


def record(cell, **entries):
    known = {"key": cell.key, "number": cell.number, "status": "done", "file": "images/a.png"}
    return Record(**known | {"scores": [use.identity for use in cell.plugins]} | entries)


def read(path, **options):
    return pd.read_csv(path, keep_default_na=False, **options)


def test_one_row_for_each_cell_of_the_whole_plan(tmp_path):
    plan = make_plan(
        {"cfg_scale": [1, 5.5], "mood": ["calm", "wild"]}, negative_prompt="nudity", plugins=SCORES
    )
    one, two, *_ = plan.cells
    records = {
        one.key: record(one, seconds=0.5, worker="w1", columns={"sharpness": 0.25}),
        "of another job": record(two, key="of another job"),
    }
    # the two moods make the same picture, so they have the same record
    table = read(write_index(plan, records, tmp_path))
    outcome = ["status", "file"]
    settings = [name for name in SETTING_NAMES if name != "cfg_scale"]
    rest = ["evaluations", "model_hash", "seconds", "worker", "error", "remark", "sharpness"]
    assert list(table.columns) == ["cell", "cfg_scale", "mood", *outcome, *settings, *rest]
    assert list(table.cell) == [1, 2, 3, 4]
    assert list(table.cfg_scale) == [1, 1, 5.5, 5.5]
    assert list(table.mood) == ["calm", "wild", "calm", "wild"]
    assert list(table.status) == ["done", "done", "pending", "pending"]
    assert set(table.model_hash) == {HASH}
    assert list(table.sharpness) == ["0.25", "0.25", "", ""]


def test_what_was_decided_stands_beside_what_was_asked_where_they_differ(tmp_path):
    """A sampler's name that says its schedule, `automatic`, and evaluations that are not used up."""
    job = tmp_path / "job.yaml"
    job.write_text(
        "model: m\nprompt: a cat\nsampler: DPM++ 2M Karras\n"
        "sweep: {schedule: [automatic], eta: [automatic], evaluations: [7, 9], cfg_scale: [1, 2]}\n"
    )
    plan = compile_job(load_job(job, Vocabulary({"m": ()}, {}))).keyed({"m": HASH})
    table = read(write_index(plan, {}, tmp_path))
    assert set(table.schedule) == {"automatic"} and set(table["resolved schedule"]) == {"karras"}
    assert set(table.sampler) == {"DPM++ 2M"}
    assert "resolved cfg_scale" not in table and list(table.evaluations) == [7, 7, 9, 9]
    assert "resolved evaluations" not in table and list(table.steps) == [7, 7, 9, 9]

    counted = {cell.key: record(cell, evaluations=cell.evaluations + 1) for cell in plan.cells}
    table = read(write_index(plan, counted, tmp_path))
    assert list(table.evaluations) == [7, 7, 9, 9] and list(table["resolved evaluations"]) == [8, 8, 10, 10]


def test_rows_stand_in_the_order_people_see_whatever_the_render_order(tmp_path):
    plan = make_plan({"steps": [1, 2, 3]})
    table = read(write_index(replace(plan, cells=plan.cells[::-1]), {}, tmp_path))
    assert list(table.cell) == [1, 2, 3] and list(table.steps) == [1, 2, 3]


def test_no_column_stands_twice(tmp_path):
    plan = make_plan({"status": ["a"], "cell": ["b"], "steps": [3], "sharpness": ["c"]}, plugins=SCORES)
    cell = plan.cells[0]
    records = {cell.key: record(cell, columns={"error": "x", "steps": 1, "sharpness": 2.0})}
    with write_index(plan, records, tmp_path).open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    assert len(header) == len(set(header))
    assert (
        header[:5] == ["cell", "axis status", "axis cell", "steps", "axis sharpness"]
        or header[4] == "sharpness"
    )
    assert set(SETTING_NAMES) <= set(header)


@pytest.mark.parametrize(
    "value", [-5, -0.25, 1e-7, 3805052747, "-5", "+1.5", "-.5e-3", "1,5", "a = b", "'quoted'", ""]
)
def test_numbers_and_plain_text_are_left_alone(value):
    assert neutral(value) == value


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "'=1", "-", "-a cat"]
)
def test_formulas_are_neutralised(tmp_path, text):
    plan = make_plan(prompt=text)
    raw = read(write_index(plan, {}, tmp_path)).prompt[0]
    assert raw == f"'{text}" and restored(raw) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_can_be_restored_and_none_is_a_formula(text):
    written = neutral(text)
    assert restored(written) == text
    if written[:1] in tuple("=+-@\t\r"):
        float(written)


def test_any_text_survives_the_table(tmp_path):
    text = 'a "cat", with;\nnew line\r\nand 猫, \\ and \ttab'
    table = read(write_index(make_plan(prompt=text), {}, tmp_path))
    assert table.prompt[0] == text


def test_numbers_keep_their_type(tmp_path):
    plan = make_plan({"cfg_scale": [-1.5, 7]}, seed=2**53 + 1, plugins=SCORES)
    records = {cell.key: record(cell, columns={"score": -0.5, "flagged": True}) for cell in plan.cells}
    table = pd.read_csv(write_index(plan, records, tmp_path))
    assert list(table.cfg_scale) == [-1.5, 7.0]
    assert list(table.seed) == [2**53 + 1] * 2
    assert list(table.score) == [-0.5] * 2 and table.flagged.dtype == bool


def test_an_axis_named_like_a_setting_shows_the_setting(tmp_path):
    plan = make_plan({"prompt": ["a cat"]})
    axis = Axis("prompt", (AxisValue("the cat", {"prompt": "a cat"}),))
    table = read(write_index(replace(plan, axes=(axis,)), {}, tmp_path))
    assert table.prompt[0] == "a cat"


def test_numbers_stand_there_as_people_write_them(tmp_path):
    plan = make_plan({"cfg_scale": [7.0, 7.5]}, plugins=SCORES)
    scores = {"score": 3.0, "score.tiny": 1e-7, "score.huge": 1e300}
    records = {cell.key: record(cell, seconds=2.0, columns=scores) for cell in plan.cells}
    path = write_index(plan, records, tmp_path)
    with path.open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["cfg_scale"], second["cfg_scale"], first["seconds"]) == ("7", "7.5", "2")
    assert {name: first[name] for name in scores} == {
        "score": "3",
        "score.tiny": "1e-07",
        "score.huge": "1e+300",
    }
    table = pd.read_csv(path)
    assert list(table.cfg_scale) == [7.0, 7.5]
    for name, value in scores.items():
        assert list(table[name]) == [value] * 2 and table[name].dtype.kind in "if"


@pytest.mark.slow
def test_a_hundred_thousand_rows(tmp_path):
    plan = make_plan({"seed": range(1000), "steps": range(1, 101)})
    records = {cell.key: record(cell) for cell in plan.cells}
    with write_index(plan, records, tmp_path).open(encoding="utf-8", newline="") as file:
        assert sum(1 for _ in csv.reader(file)) == 100_001


def test_axes_say_what_was_asked_and_settings_what_was_decided(tmp_path):
    values = (
        AxisValue("DPM++ 2M Karras", {"sampler": "DPM++ 2M Karras"}),
        AxisValue("LMS", {"sampler": "LMS"}),
    )
    eta = (AxisValue("automatic", {"eta": None}),)
    plan = make_plan(sampler="DPM++ 2M", schedule="karras", sigma_min=None, rng="nv")
    cell = replace(plan.cells[0], coordinates=(0, 0), evaluations=19)
    plan = replace(plan, axes=(Axis("sampler", values), Axis("eta", eta)), cells=(cell,))
    table = read(write_index(plan, {}, tmp_path))
    assert list(table.columns[:3]) == ["cell", "sampler", "eta"]
    assert [*table.sampler, *table.eta] == ["DPM++ 2M Karras", ""]
    assert [*table.schedule, *table.sigma_min, *table.rng, *table.evaluations] == ["karras", "", "nv", 19]
