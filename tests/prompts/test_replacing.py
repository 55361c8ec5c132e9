import pytest

from farm.prompts.replacing import replaced


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
