from collections import Counter

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
    assert common(["a", "b"]) == common(["a, b", "c, d"]) == common([]) == common(["", ""]) == ""
    assert common(["a, b, c, z", "a, d, e, f, z"]) == "a, …, z"
    assert common(["cat b hat", "big cat b red hat"]) == "… cat b … hat"
    assert common(["", f"a red cat{TAIL}", f"a blue cat{TAIL}"]) == f"a … cat{TAIL}"


def test_where_nothing_is_left_the_text_is_the_title():
    texts = ["a ginger cat" + TAIL, "a ginger cat" + TAIL + " and a hat", TAIL + " a ginger cat"]
    assert len(set(differing(texts))) == 3
    permuted = ["red hat and green eyes and ginger fur", "green eyes and red hat and ginger fur"]
    assert differing(permuted) == permuted


def test_an_empty_text_is_left_out_of_the_comparison():
    texts = ["blurry, low quality, ugly, deformed hands", "blurry, low quality, ugly, watermark", ""]
    assert differing(texts) == ["deformed hands", "watermark", ""]
    assert differing([*texts[:1], "", " "]) == [*texts[:1], "", " "]


def test_texts_with_little_in_common_stay_whole():
    texts = [
        "[ginger:black:0.1] cat",
        "a ginger cat wearing a hat",
        "three black dogs on top of a tall green hill",
    ]
    assert differing(texts) == texts
    texts = [
        "a ginger cat wearing a hat in the rain at night",
        "three black dogs and a cat on a tall green hill",
    ]
    assert differing(texts) == texts and differing(texts, always=True) != texts
    assert differing(["[ginger:black:0.1] cat", "a ginger cat in a hat"], always=True) == [
        "[ginger:black:0.1]",
        "a ginger … in a hat",
    ]


@given(st.lists(st.lists(st.sampled_from("abcdef,"), max_size=12).map(" ".join), max_size=5), st.booleans())
def test_each_word_stands_in_the_title_or_in_what_all_have_in_common(texts, always):
    shared = Counter(common(texts).replace(",", "").split())
    for text, title in zip(texts, differing(texts, always=always)):
        said = shared + Counter(title.replace(",", "").split())
        assert not text.strip() or Counter(text.replace(",", "").split()) <= said


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
