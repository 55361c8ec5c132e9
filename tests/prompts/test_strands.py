import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.prompts.emphasis import weighted
from farm.prompts.strands import said_by, stage_at, strands
from farm.prompts.tree import STRONGEST
from tests.prompts.test_grammar import texts


def rows(prompt: str, cfg_scale: float, negative: str = "n") -> dict[str, float]:
    return {strand.said.texts[0]: strand.coefficient for strand in strands(prompt, negative, cfg_scale, 20)}


@pytest.mark.parametrize(
    ("prompt", "cfg_scale", "expected"),
    [
        ("p", 7, {"n": -6, "p": 7}),
        ("p", 1, {"p": 1}),
        ("p", 0, {"n": 1}),
        ("p AND q :0.5", 4, {"n": -5, "p": 4, " q": 2}),
        ("p :0.5 AND q :0.5", 1, {"p": 0.5, " q": 0.5}),
        ("p AND q :-1", 5, {"n": 1, "p": 5, " q": -5}),
        ("p AND q :0", 5, {"n": -4, "p": 5}),
        ("p :2", 0.5, {"p": 1}),
        ("p :0.1 AND q :0.2 AND r :0.7", 1, {"p": 0.1, " q": 0.2, " r": 0.7}),
    ],
)
def test_rows_of_no_weight_are_left_out(prompt, cfg_scale, expected):
    assert rows(prompt, cfg_scale) == pytest.approx(expected)


def test_without_the_unconditional_row_the_first_part_stands_in_for_it():
    weights = [strand.weight for strand in strands("p AND q :0.5 AND r :-1", "n", 7.0, 20)]
    assert weights == pytest.approx([0, 1 + 1 - 0.5, 0.5, -1])


def test_texts_that_come_again_count_once():
    [negative, strand] = strands("[a|b]", "[c:d:0.5]", 7.0, 6)
    assert strand.said.texts == ("a", "b")
    assert [last for last, _ in strand.said.schedule] == [1, 2, 3, 4, 5, 6]
    assert negative.said.schedule == ((3, "c"), (6, "d"))


@pytest.mark.parametrize(
    ("text", "evaluations", "texts", "others"),
    [
        ("[a:b:3]", 4, ("a",), ("b",)),
        ("[a:b:3]", 5, ("a", "b"), ()),
        ("[a|b]", 2, ("a",), ("b",)),
        ("[a|b|c|d]", 4, ("a", "b", "c"), ("d",)),
        ("[a:b:3]", None, ("a", "b"), ()),
    ],
)
def test_what_the_model_is_never_asked_with_is_told_apart(text, evaluations, texts, others):
    [said] = said_by(text, 4, evaluations)
    assert (said.texts, said.others) == (texts, others)


@given(texts, st.sampled_from([0.0, 0.5, 1.0, 7.0]))
def test_any_prompt_has_rows_of_finite_numbers(text, cfg_scale):
    found = strands(text, "", cfg_scale, 4)
    assert found and all(math.isfinite(strand.coefficient + strand.weight) for strand in found)


@pytest.mark.parametrize("number", ["9" * 400, "9" * 308, "-" + "9" * 400])
def test_huge_weights_are_limited(number):
    text = f"a :{number} AND (b:{number}) :{number} AND c :-{number.removeprefix('-')}"
    assert all(math.isfinite(strand.coefficient) for strand in strands(text, "", 0.0, 4))
    assert all(
        abs(piece.weight) <= STRONGEST
        for section in weighted(f"((b:{number}):{number})")
        for piece in section
    )


@pytest.mark.parametrize(
    "prompt", ["p", "p AND q :0.5", "p :0 AND q :0.5", "p :0 AND q :0 AND r", "p AND q :-1", "p :3"]
)
@pytest.mark.parametrize("cfg_scale", [0.5, 1.0, 7.0])
def test_without_guidance_the_rows_sum_to_1(prompt, cfg_scale):
    assert sum(strand.weight for strand in strands(prompt, "n", cfg_scale, 4)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("ends", "stages"),
    [([10], [0] * 12), ([3, 10], [0] * 4 + [1] * 8), ([1, 2, 3], [0, 0, 1, 2, 2, 2])],
)
def test_evaluations_count_from_0_and_the_last_stage_stays(ends, stages):
    assert [stage_at(ends, evaluation) for evaluation in range(len(stages))] == stages
