from hypothesis import given
from hypothesis import strategies as st

from farm.prompts.differing import common, differing

TAIL = " with green eyes on a blue background"


def test_short_texts_stay_as_they_are():
    assert differing(["a cat", "a dog"]) == ["a cat", "a dog"]
    assert differing(["a cat" + TAIL]) == ["a cat" + TAIL]


def test_what_all_have_in_common_is_left_out():
    assert differing([f"a {colour} cat{TAIL}" for colour in ("ginger", "light grey")]) == [
        "ginger",
        "light grey",
    ]


def test_an_ellipsis_stands_between_what_differs():
    texts = [
        f"a {fur} cat with {eyes} eyes wearing a {worn}" for fur, eyes, worn in [("red", "blue", "hat"),
        ("grey", "green", "scarf"), ("black", "blue", "red hat")]
    ]  # fmt: skip
    assert differing(texts) == ["red … blue … hat", "grey … green … scarf", "black … blue … red hat"]


def test_commas_stay_between_what_differs():
    texts = [
        "masterpiece, best quality, red hat, green eyes",
        "masterpiece, best quality, scarf, owl, green eyes",
    ]
    assert differing(texts) == ["red hat", "scarf, owl"]


def test_what_all_have_in_common():
    texts = [f"a {fur} cat, {eyes} eyes{TAIL}" for fur, eyes in [("red", "blue"), ("light grey", "green")]]
    assert common(texts) == f"a … cat, … eyes{TAIL}"
    assert common(["a cat", "a cat and a hat"]) == "a cat …"
    assert common(["a cat", "a cat"]) == "a cat"
    assert common(["a", "b"]) == "…"


def test_where_nothing_is_left_the_text_is_the_title():
    texts = ["a ginger cat" + TAIL, "a ginger cat" + TAIL + " and a hat", TAIL + " a ginger cat"]
    assert len(set(differing(texts))) == 3
    permuted = ["red hat and green eyes and ginger fur", "green eyes and red hat and ginger fur"]
    assert differing(permuted) == permuted


def test_equal_texts_have_equal_titles():
    texts = [f"a {colour} cat{TAIL}" for colour in ("red", "blue", "red")]
    assert differing(texts) == ["red", "blue", "red"]


@given(st.lists(st.text("ab ,…", max_size=50), max_size=6))
def test_texts_that_differ_have_titles_that_differ(texts):
    titles = differing(texts)
    assert len(titles) == len(texts)
    assert len(set(zip(texts, titles))) == len(set(titles)) == len(set(texts))


def test_a_thousand_long_prompts_have_titles_of_their_own():
    texts = [" ".join(f"word{(i * j) % 97}" for j in range(50)) + f" {i}" for i in range(1000)]
    assert len(set(differing(texts))) == 1000
