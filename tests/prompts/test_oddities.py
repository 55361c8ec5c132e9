import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.prompts.oddities import oddities
from tests.prompts.test_grammar import texts


def found(text: str, negative: bool = False, evaluations: int = 20) -> list[tuple[str, str]]:
    """Each place, and the beginning of what is said about it."""
    odd = oddities(text, 20, evaluations, negative)
    return [(text[one.start : one.end], one.what.split(":")[0].split(";")[0]) for one in odd]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (cat and a hat", [("(cat and a hat", "is never closed")]),
        ("a [b (c", [("[b (c", "is never closed"), ("(c", "is never closed")]),
        ("a cat) :)", [(")", "closes nothing"), (")", "closes nothing")]),
        ("[a:b:30] [c:d:0] [e:f:1.0]", [
            ("[a:b:30]", "never changes"), ("[c:d:0]", "changes before the first step"),
            ("[e:f:1.0]", "never changes"),
        ]),
        ("[a:b:19]", [("[a:b:19]", "never changes")]),  # steps 0 to 19
        ("a (cat:1000000000) b", [(":1000000000)", "a weight of 1e+09 is very strong")]),
        ("(a:1.2.3)", [(":1.2.3)", "'1.2.3' is not a number")]),
        ("(a BREAK b:1.2) BREAK c", [("BREAK", "ends no chunk inside brackets")]),
        ("(a BREAK b", [("(a BREAK b", "is never closed"), ("BREAK", "ends no chunk inside brackets")]),
        ("a | b [c:d:5]", [("|", "a bar outside of [ ]")]),
        ("[a:b|c]", [("|", "a bar beside a colon or a lone bracket is no alternation")]),
        ("[a|b", [
            ("[a|b", "is never closed"), ("|", "a bar beside a colon or a lone bracket is no alternation"),
        ]),
        ("(a:1e9)", [("(a:1e9)", "has no weight, but text behind its colon")]),
        ("(a:1,3)", [("(a:1,3)", "has no weight, but text behind its colon")]),
        ("(a: )", [("(a: )", "has no weight, but text behind its colon")]),
        ("(a:2, b:1.4)", [("(a:2,", "has no weight there, but text")]),
        ("[a:b]", [("[a:b]", "is no edit, since no step ends it")]),
        ("[a:b:half]", [("[a:b:half]", "is no edit, since no step ends it")]),
        ("[blurry:0.8]", [("[blurry:0.8]", "shows nothing before step 17")]),
        ("a AND", [("AND", "joins nothing")]),
        ("AND a AND  AND b", [("AND", "joins nothing"), ("AND", "joins nothing")]),
        ("< lora:x> <lora:y", [("< lora", "begins no tag, but text"), ("<lora", "begins no tag, but text")]),
        ("a __fur__ {b|c}", [("__fur__", "is text"), ("|", "a bar outside of [ ]")]),
        ("[a:b:3]\\", [("\\", "a backslash before nothing")]),
        ("ratio 16:9", [(":9", "a number at the end is the weight of the whole prompt, here 9")]),
        ("a AND b :100", [(" :100", "a weight of 100 is very strong")]),
        ("x <lora:q:abc> (y<hypernet:h> z", [
            ("<lora:q:abc>", "the weight 'abc' is not a number"), ("(y<hypernet:h> z", "is never closed"),
        ]),
        ("ü AND <lora:a:1>(b", [("(b", "is never closed")]),
    ],
)  # fmt: skip
def test_what_looks_like_a_mistake_is_found_in_its_place(text, expected):
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a (cat:1.2), [hat], ((eyes)) and \\(this\\)",
        "[a:b:0.5] [c:5] [d::18] [e|f|] a AND b :0.5 AND c :-1 <lora:x:0.8> <lora:y:te=1>",
        "[a BREAK b|c] d BREAK (e BREAK f:1)",
        "(cat:[1.2|0.8]) [a (b] c)",
        "",
    ],
)
def test_the_language_itself_is_not_odd(text):
    assert found(text) == []


def test_a_negative_prompt_takes_less():
    assert found("a AND b <lora:x:1> :2", negative=True) == [
        ("AND", "joins nothing in a negative prompt"),
        ("<lora:", "does nothing in a negative prompt"),
    ]


def test_what_never_changes_goes_by_how_often_the_model_is_asked():
    assert found("[a:b:19]", evaluations=21) == []
    assert found("[a:b:18]", evaluations=19) == [("[a:b:18]", "never changes")]


def test_a_line_says_where():
    [one] = oddities("a (cat and a hat on a blue background", 20, 20)
    assert one.at("a (cat and a hat on a blue background").startswith(
        "character 3, '(cat and a hat on a blue': is never closed"
    )


@given(texts, st.booleans())
def test_places_lie_in_the_text(text, negative):
    for one in oddities(text, 20, 20, negative):
        assert 0 <= one.start < one.end <= len(text) and one.at(text)


@pytest.mark.timeout(60)  # quadratic time would take hours
@pytest.mark.parametrize(
    "text",
    ["{" + "|" * 99_999, "__a" * 33_000, "[a:" * 33_000, "(a:" * 33_000, "(a:1," * 20_000, "< lora" * 16_000],
)
def test_much_of_the_same_takes_linear_time(text):
    assert isinstance(oddities(text, 20, 20), list)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text", ["(BREAK " * 14_000, "<lora:a:b>(" * 9_000, "(a:9)" * 20_000, "[a:b:99]" * 10_000]
)
def test_many_are_found_in_linear_time(text):
    assert len(oddities(text, 20, 20)) > 8_000
