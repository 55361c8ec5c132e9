import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.prompts.hiding import hidden, is_dynamic, shown


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("{a|b}", "|"),
        ("{[a|b] c|d}", "|"),
        ("{[a|b} c]", "|"),
        (r"{\[a|b\]}", "|"),
        ("{2$$ and $$a|b}", "$$$$|"),
        ("{[2$$] a|b}", "|"),
        ("${v=a} $v 5$", "$"),
        ("%{a $$ b} 100%", "%$$"),
        ("[a|{b|c}]", "|"),
        ("https://x/__a/b__ #1 a // b", "/"),
    ],
)
def test_what_means_something_to_the_library_is_kept(text, kept):
    assert "".join(sign for sign in hidden(text) if sign in "|$%#/\t").replace("//", "/").startswith(kept)


def test_signs_and_comments_are_taken_away():
    assert hidden("{~a|b} __@c__ {\n!d}") == "{a|b} __c__ {\nd}"
    assert shown(hidden("# why\na cat #1\n  # no\nb # c // d")) == "a cat #1\nb # c // d"


@given(st.text(st.sampled_from("[]|()<>:0.5 ab,$%/\\&\n")))
def test_everything_else_comes_back(text):
    assert shown(hidden(text)) == text


@given(st.text(st.sampled_from("{}[]|$%\\a "), max_size=200))
def test_any_text_can_be_hidden(text):
    assert shown(hidden(text)) == text


def test_what_is_dynamic():
    assert is_dynamic("a {b}") and is_dynamic("__a__")
    assert not is_dynamic("(a:1.2) [b|c] [d:e:0.5] <lora:f_g:1> BREAK AND $5 100% #1")
