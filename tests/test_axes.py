import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.axes import MAX_VALUES, BadValue, expand_item, interval, number_label, split_names, split_numbers


def labels(text, truncate=False):
    items = split_numbers(text)
    return [number_label(value) for at in range(len(items)) for value in expand_item(items, at, truncate)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", "7"),
        (" 7.50 , .5,-2, 1e-3, +4, 1E1, 5. ", "7.5 0.5 -2 0.001 4 10 5"),
        ("1-5", "1 2 3 4 5"),
        ("1 - 3", "1 2 3"),
        ("3-3", "3"),
        ("1-13 (+2)", "1 3 5 7 9 11 13"),
        ("13-1 (-4)", "13 9 5 1"),
        ("1-5(2)", "1 3 5"),
        ("1-10 (+5)", "1 6"),
        ("0-1 (+0.3)", "0 0.3 0.6 0.9"),
        (".5-1.5 (+.25)", "0.5 0.75 1 1.25 1.5"),
        ("-2--1 (+.5)", "-2 -1.5 -1"),
        ("-1-1", "-1 0 1"),
        ("1-2 [5]", "1 1.25 1.5 1.75 2"),
        ("2-1 [3]", "2 1.5 1"),
        ("1-2 [4]", "1 1.33333 1.66667 2"),
        ("4-9 [1]", "4"),
        ("1, 2, ..., 9", "1 2 3 4 5 6 7 8 9"),
        ("0.1, 0.2, …, 1", "0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1"),
        ("9, 7, ..., 1, 20", "9 7 5 3 1 20"),
        ("1-3, 7, 10-20 (+5)", "1 2 3 7 10 15 20"),
        ("1, 1", "1 1"),
        ("1e-3-3e-3(1e-3)", "0.001 0.002 0.003"),
        ("9007199254740993", "9007199254740993"),
    ],
)
def test_grammar(text, expected):
    assert labels(text) == expected.split()


def test_evenly_spaced_whole_numbers_lose_their_fraction():
    assert labels("1-10 [5]", truncate=True) == ["1", "3", "5", "7", "10"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a number or a range"),
        ("1,,2", "'' is not a number or a range"),
        ("five", "'five' is not a number or a range"),
        ("1-", "'1-' is not a number or a range"),
        ("1-2 (+1", "'1-2 (+1' is not a number or a range"),
        ("1-2-3", "'1-2-3' is not a number or a range"),
        ("nan", "'nan' is not a number or a range"),
        ("inf", "'inf' is not a number or a range"),
        ("１", "'１' is not a number or a range"),
        ("1e999", "'1e999' is not a number or a range"),
        ("1-5 (0)", "'1-5 (0)' has a step of 0"),
        ("13-1", "'13-1' runs the wrong way; its step would have to be like (-1)"),
        ("1-13 (-2)", "'1-13 (-2)' runs the wrong way; its step would have to be like (+2)"),
        ("1-5 [0]", "'1-5 [0]' asks for no value"),
        ("1-1e9", f"'1-1e9' stands for more than {MAX_VALUES} values"),
        (
            "0-1 [99999999999999999999]",
            f"'0-1 [99999999999999999999]' stands for more than {MAX_VALUES} values",
        ),
        ("0, 1, ..., 1e9", f"'0, 1, 1e9' stands for more than {MAX_VALUES} values"),
        ("1, 3, ..., 10", "'1, 3, ...' does not arrive at 10"),
        ("1, 2, ..., 2", "'1, 2, ...' does not arrive at 2"),
        ("1, 1, ..., 2", "'1, 1, ...' does not arrive at 2"),
        ("1, 2, ..., -5", "'1, 2, ...' does not arrive at -5"),
        ("..., 5", "'...' needs two numbers before it and one after it, as in 1, 2, ..., 9"),
        ("1, ..., 5", "'...' needs two numbers before it and one after it, as in 1, 2, ..., 9"),
        ("1, 2, ...", "'...' needs two numbers before it and one after it, as in 1, 2, ..., 9"),
        ("1-2, 3, ..., 5", "'...' needs two numbers before it and one after it, as in 1, 2, ..., 9"),
    ],
)
def test_what_is_not_in_the_grammar(text, message):
    with pytest.raises(BadValue, match=f"^{re.escape(message)}$"):
        labels(text)


decimals = st.decimals(min_value=-1000, max_value=1000, places=2)
steps = st.decimals(min_value="0.01", max_value=500, places=2)


@given(decimals, decimals, steps)
def test_ranges_are_exact_and_stay_inside(first, last, size):
    step = size if first <= last else -size
    if abs(last - first) / size > MAX_VALUES - 1:
        return
    values = expand_item([f"{first}-{last} ({step:+})"], 0)
    exact = [Fraction(first) + index * Fraction(step) for index in range(len(values))]
    assert values == exact
    low, high = sorted((Fraction(first), Fraction(last)))
    assert all(low <= value <= high for value in values)
    assert not low <= values[-1] + Fraction(step) <= high


@given(decimals, decimals, st.integers(2, 50))
def test_evenly_spaced_values_keep_both_ends(first, last, count):
    values = expand_item([f"{first}-{last} [{count}]"], 0)
    gaps = {later - earlier for earlier, later in zip(values, values[1:])}
    assert (values[0], values[-1], len(values), len(gaps)) == (Fraction(first), Fraction(last), count, 1)


@given(decimals)
def test_labels_are_read_back_exactly(number):
    label = number_label(Fraction(number))
    assert expand_item([label], 0) == [Fraction(number)]
    assert label == "0" or not re.search(r"^[-+]?0\d|\.\d*0$|\.$|^\+", label)


@given(st.text(st.sampled_from("0123456789.-+()[]eE ,…x\n"), max_size=150))
def test_any_text_is_read_or_turned_down(text):
    items = split_numbers(text)
    for position in range(len(items)):
        try:
            values = expand_item(items, position)
        except BadValue as mistake:
            assert "\n" not in str(mistake)
        else:
            assert 1 <= len(values) <= MAX_VALUES or items[position] == "…"


@pytest.mark.parametrize("text", ["9" * 10**6, "1-" * 10**6, " " * 10**6 + "x", "1" + " " * 10**6 + "-"])
def test_long_texts_are_turned_down_at_once(text):
    with pytest.raises(BadValue) as caught:
        expand_item([text], 0)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Euler a, Heun", ["Euler a", "Heun"]),
        ('a, "b,c", d', ["a", "b,c", "d"]),
        ('"say ""hi""", x', ['say "hi"', "x"]),
        ("", [""]),
        ("a,", ["a", ""]),
    ],
)
def test_names_are_split_at_commas_with_quoting(text, names):
    assert split_names(text) == names


@pytest.mark.parametrize("text", ['"open', '"a" b'])
def test_names_with_broken_quotes(text):
    with pytest.raises(BadValue, match="has quotes that do not match"):
        split_names(text)


@given(st.lists(st.text(st.characters(exclude_characters='"\n\r\0', exclude_categories=["Cs"])), min_size=1))
def test_quoted_names_come_back(names):
    assert split_names(",".join(f'"{name}"' for name in names)) == [name.strip() for name in names]


@pytest.mark.parametrize(
    ("text", "ends"), [("1-13", (1, 13)), ("5-1", (5, 1)), ("7", None), ("1-3 (+1)", None), ("1-3 [2]", None)]
)
def test_interval(text, ends):
    assert interval(text) == ends
