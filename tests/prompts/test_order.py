from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.prompts.order import overlapping, reordered

PROMPT = "a cat, red hat, (green eyes:1.2), ginger fur"


def test_the_places_are_filled_in_the_order_given():
    assert reordered(PROMPT, ["green eyes", "ginger fur", "red hat"]) == (
        "a cat, green eyes, (ginger fur:1.2), red hat"
    )
    assert reordered(PROMPT, ["red hat", "green eyes", "ginger fur"]) == PROMPT


def test_only_the_first_place_of_a_part_counts():
    assert reordered("cat dog cat", ["dog", "cat"]) == "dog cat cat"


@pytest.mark.parametrize("parts", [["owl", "green eyes", "red hat"], ["green eyes", "red hat"]])
def test_what_is_not_there_is_left_out(parts):
    assert reordered(PROMPT, parts) == "a cat, green eyes, (red hat:1.2), ginger fur"


@pytest.mark.parametrize(
    ("text", "parts", "found"),
    [
        ("a red hat", ["red", "red hat"], ("red", "red hat")),
        ("a red hat", ["hat", "red h"], ("red h", "hat")),
        ("a hat, red hat", ["hat", "red hat"], None),
        ("a red hat", ["red", "hat", "owl"], None),
    ],
)
def test_overlapping_parts_are_found(text, parts, found):
    assert overlapping(text, parts) == found


@given(st.lists(st.text("abc", min_size=1, max_size=3), unique=True, min_size=1, max_size=4))
def test_every_order_has_the_same_parts(parts):
    apart = [f"<{part}>" for part in parts]
    text = " and ".join(apart)
    texts = [reordered(text, order) for order in permutations(apart)]
    assert texts == [" and ".join(order) for order in permutations(apart)]
