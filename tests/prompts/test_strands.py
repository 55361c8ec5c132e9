import pytest

from farm.prompts.strands import stage_at, strands


def rows(prompt: str, cfg_scale: float, negative: str = "n") -> dict[str, float]:
    return {strand.texts[0]: strand.coefficient for strand in strands(prompt, negative, cfg_scale, 20)}


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
    assert strand.texts == ("a", "b") and [last for last, _ in strand.schedule] == [1, 2, 3, 4, 5, 6]
    assert negative.schedule == ((3, "c"), (6, "d"))


@pytest.mark.parametrize(
    ("ends", "stages"),
    [([10], [0] * 12), ([3, 10], [0] * 4 + [1] * 8), ([1, 2, 3], [0, 0, 1, 2, 2, 2])],
)
def test_evaluations_count_from_0_and_the_last_stage_stays(ends, stages):
    assert [stage_at(ends, evaluation) for evaluation in range(len(stages))] == stages
