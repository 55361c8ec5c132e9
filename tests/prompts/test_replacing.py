import pytest

from farm.prompts.replacing import TooLong, replaced


@pytest.mark.parametrize(
    ("text", "pairs", "expected"),
    [
        ("a cat, a cat", [("cat", "dog")], "a dog, a dog"),
        ("a cat and a dog", [("cat", "dog"), ("dog", "wolf")], "a wolf and a wolf"),
        ("a Cat", [("cat", "dog")], "a Cat"),
        ("a (cat:1.2)", [("(cat:1.2)", "")], "a "),
        ("aaa", [("aa", "a")], "aa"),
        ("text", [], "text"),
    ],
)
def test_replaced(text, pairs, expected):
    assert replaced(text, pairs) == expected


def test_no_text_becomes_longer_than_allowed():
    assert replaced("aaa", [("a", "bb")], 6) == "bbbbbb"
    with pytest.raises(TooLong):
        replaced("aaa", [("a", "a" * 10)] * 40, 1000)
