import pickle
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from farm.axes import BadValue
from farm.document import Mistakes
from farm.errors import BadInput
from farm.job import Vocabulary, job_schema, load_job
from farm.kinds import Reading, Seeds
from farm.merges import METHODS, Merge, content_of, merge_of, method_for, name_of, weight_in, weighted
from farm.plan import compile_job
from farm.settings import SETTINGS

SUM, DIFFERENCE = "weighted sum", "add difference"
MODELS = {
    "a": ("a.safetensors",),
    "b": ("b.safetensors",),
    "c": (),
    "anime/soft": ("soft",),
    "x + y": (),
    "d, e": (),
}


@pytest.mark.parametrize(
    ("name", "merge"),
    [
        ("0.7 a + 0.3 b", Merge(("a", "b"), SUM, 0.3)),
        ("a + 0.3 (b - c)", Merge(("a", "b", "c"), DIFFERENCE, 0.3)),
        ("1 a + 0 b", Merge(("a", "b"), SUM, 0)),
        ("0.75 0.5 x + 0.25 v1-5 pruned", Merge(("0.5 x", "v1-5 pruned"), SUM, 0.25)),
        ("'x + y' + 1 ('b''s' - 'v - 2')", Merge(("x + y", "b's", "v - 2"), DIFFERENCE, 1)),
    ],
)
def test_a_name_says_how_a_merge_is_made(name, merge):
    assert name_of(merge) == name and merge_of(name) == merge


@given(
    st.sampled_from([row for row in METHODS.values() if row.parts > 1]),
    st.lists(st.text("ab1.-+ ()'\"/,", min_size=1).filter(lambda name: name == name.strip()), min_size=3),
    st.integers(0, 1000),
)
def test_any_names_can_be_merged(method, names, thousandths):
    merge = Merge(tuple(names[: method.parts]), method.name, thousandths / 1000)
    assert merge_of(name_of(merge)) == merge


@pytest.mark.parametrize("name", ["a", "anime/soft", "a + b", "0.7 a", "0.7 a + 0.3 ", "a + 0.3 (b)", "'a'"])
def test_other_names_are_no_merges(name):
    assert merge_of(name) is None and weighted(name, 0.5) == name


def test_a_long_text_is_turned_down_quickly():
    assert merge_of("0.5 " + "a " * 900 + "(") is None and merge_of("a " * 100_000) is None


@pytest.mark.parametrize("name", ["0.7 a + 0.4 b", "a + 1.5 (b - c)"])
def test_numbers_that_cannot_be_are_mistakes(name):
    with pytest.raises(BadValue):
        merge_of(name)


@pytest.mark.parametrize("weight", ["-0.1", "1.01", "nan", "inf", "much", ""])
def test_weights_go_from_0_to_1(weight):
    with pytest.raises(BadValue, match="from 0 to 1"):
        weight_in(weight)


def test_methods_are_found_by_name_and_by_the_number_of_parts():
    assert [method_for("", count).name for count in (1, 2, 3)] == ["no interpolation", SUM, DIFFERENCE]
    assert method_for("Add_Difference", 3).name == method_for("difference", 3).name == DIFFERENCE
    for name, parts, what in (("sigmoid", 2, "not known"), ("sum", 3, "takes 2"), ("", 4, "two checkpoints")):
        with pytest.raises(BadValue, match=what):
            method_for(name, parts)


def test_methods_are_those_of_a1111():
    assert METHODS[SUM].function([10.0, 20.0], 0.25) == 12.5
    assert METHODS[DIFFERENCE].function([10.0, 20.0, 16.0], 0.25) == 11.0


def test_contents_count_and_names_do_not():
    merge = Merge(("a", "b"), SUM, 0.3)
    content = content_of(merge, ["01", "02"])
    assert content == content_of(Merge(("x", "y"), SUM, 0.3), ["01", "02"]) and len(content) == 64
    others = [
        content_of(merge, ["02", "01"]),
        content_of(Merge(("a", "b"), SUM, 0.31), ["01", "02"]),
        content_of(Merge(("a", "b"), "other", 0.3), ["01", "02"]),
    ]
    assert len({content, *others}) == 4 and content_of(merge, ["01", ""]) == ""


def test_merges_go_to_other_processes():
    merge = Merge((Path("a"), Path("b")), SUM, 0.3)
    assert pickle.loads(pickle.dumps(merge)) == merge


def test_all_this_is_without_heavy_libraries():
    heavy = {"torch", "ray", "diffusers", "transformers", "numpy", "pandas"}
    code = f"import sys, farm.merges, farm.written_merges, farm.cli.merge; print({heavy} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "set()", answer.stderr


def read(text):
    [(title, value)] = SETTINGS["model"].expand([text], 0, Reading(MODELS, Seeds(), Mistakes()))
    return title, value


def test_parts_are_named_as_checkpoints_are():
    assert read(".5 A.safetensors + .5 soft") == ("0.5 a + 0.5 anime/soft",) * 2
    for text, what in (
        ("0.5 a + 0.5 gone", "'gone' is not known"),
        ("0.5 a + 0.5 '0.5 a + 0.5 b'", "is a merge itself"),
    ):
        with pytest.raises(BadValue, match=what):
            read(text)


def cells_of(text, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(f"prompt: a cat\n{text}", encoding="utf-8")
    return compile_job(load_job(path, Vocabulary(models=MODELS, plugins={})))


@pytest.mark.parametrize(
    ("job", "models"),
    [
        ("model: {merge: [a, b]}", ["0.7 a + 0.3 b"]),
        ("model: {merge: [a, b, c], weight: .5}", ["a + 0.5 (b - c)"]),
        ("model: {merge: [soft, 'x + y'], method: weighted sum, weight: 1}", ["0 anime/soft + 1 'x + y'"]),
        ("model: {merge: ['d, e', b]}", ["0.7 d, e + 0.3 b"]),
        ("sweep: {model: [{merge: ['d, e', b]}, a]}", ["0.7 d, e + 0.3 b", "a"]),
        ("model: 0.5 a + 0.5 b", ["0.5 a + 0.5 b"]),
        ("sweep: {model: [a, {merge: [a, b]}, 0.5 a + 0.5 b]}", ["a", "0.7 a + 0.3 b", "0.5 a + 0.5 b"]),
        ("sweep: {model: {merge: [a, b]}}", ["0.7 a + 0.3 b"]),
        ("sweep: {model: [{title: both, model: {merge: [a, b]}}]}", ["0.7 a + 0.3 b"]),
        ("sweep: {own: [{title: both, model: {merge: [a, b]}}]}", ["0.7 a + 0.3 b"]),
        ("sweep: {zip: {model: [a, {merge: [a, b]}], steps: [1, 2]}}", ["a", "0.7 a + 0.3 b"]),
        (
            "model: {merge: [a, b]}\nsweep: {merge_weight: 0-1 (+.5)}",
            ["1 a + 0 b", "0.5 a + 0.5 b", "0 a + 1 b"],
        ),
        ("model: {merge: [a, b]}\nmerge_weight: .25", ["0.75 a + 0.25 b"]),
        ("model: {merge: [a, b]}\nmerge_weight: automatic", ["0.7 a + 0.3 b"]),
        ("model: a\nsweep: {merge_weight: [0, 1]}", ["a", "a"]),
    ],
)
def test_jobs_can_say_it(job, models, tmp_path):
    plan = cells_of(job, tmp_path)
    assert [cell.settings.model for cell in sorted(plan.cells, key=lambda cell: cell.number)] == models
    written = YAML(typ="safe").load(f"prompt: a cat\n{job}")
    jsonschema.validate(written, job_schema(), jsonschema.Draft202012Validator)
    assert cells_of(plan.job_yaml.replace("prompt: a cat\n", ""), tmp_path).cells == plan.cells


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ("sweep: {merge_weight: [0, 1]}", "(1 - merge_weight) a + merge_weight b"),
        ("merge_weight: .25", "0.75 a + 0.25 b"),
        ("merge_weight: automatic", "0.7 a + 0.3 b"),
    ],
)
def test_headings_say_what_is_merged(job, told, tmp_path):
    assert cells_of(f"model: {{merge: [a, b]}}\n{job}", tmp_path).asked["model"] == told
    assert cells_of(f"model: a\n{job}", tmp_path).asked["model"] == "a"


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("{merge: [a, b], weight: 2}", "'2' is not allowed as the weight of a merge"),
        ("{merge: [a, b], weight: [0, 1]}", "an axis called merge_weight"),
        ("{merge: [a, b], method: sigmoid}", "the method 'sigmoid' is not known"),
        ("{merge: [a, b], method: [sum]}", "the method of a merge is one of"),
        ("{merge: [a, b], wait: 1}", "a merge has no 'wait'"),
        ("{merge: [a]}", "two checkpoints, or of three"),
        ("{merge: [a, [b]]}", "is a list of checkpoints"),
        ("{merge: [a, bx]}", "'bx' is not known; did you mean 'b'?"),
    ],
)
def test_mistakes_are_told_once_and_where_they_stand(model, what, tmp_path):
    for job in (f"model: {model}", f"sweep:\n  model: [a, {model}]"):
        with pytest.raises(BadInput, match=what) as mistake:
            cells_of(job, tmp_path)
        [problem] = mistake.value.problems
        assert problem.where.endswith(f"job.yaml:{1 + len(job.splitlines())}")
