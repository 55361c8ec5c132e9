import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.prompts.emphasis import Piece, weighted
from tests.prompts.documented import ATTENTION, RAISING

plain = st.text(alphabet="abc ,|", min_size=1)
texts = st.one_of(
    st.lists(st.sampled_from([*"[]():|\\ \n", "a", ":1.5)", ":.5)", "\\(", " BREAK ", ":-1)", "x y"])).map(
        "".join
    ),
    st.text(),
)


def in_one_row(text: str) -> list[tuple[str, float]]:
    """As A1111 writes it: the pieces of all sections, with a BREAK of weight -1 between them."""
    first, *others = weighted(text)
    row = [*first, *(piece for section in others for piece in (Piece("BREAK", -1), *section))]
    return [tuple(piece) for piece in row]


@pytest.mark.parametrize(("text", "pieces", "source"), ATTENTION)
def test_pieces_are_as_documented(text, pieces, source):
    expected = [(piece, weight) for piece, weight in pieces if piece]
    found = in_one_row(text)
    assert [piece for piece, _ in found] == [piece for piece, _ in expected], source
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected]), source


@pytest.mark.parametrize(("text", "source"), RAISING)
def test_a_weight_that_is_no_number_is_text(text, source):
    inner = text.removeprefix("(a").removesuffix(")")
    assert weighted(text) == ((Piece(f"a{inner}", 1.1),),), source


@given(plain, st.lists(st.floats(0.1, 3).map(lambda number: round(number, 2)), max_size=8))
def test_weights_multiply(text, factors):
    nested = "(" * len(factors) + text + "".join(f":{factor})" for factor in factors)
    [[piece]] = weighted(nested)
    assert piece.text == text and piece.weight == pytest.approx(math.prod(factors))


@given(plain, st.integers(0, 30), st.integers(0, 30))
def test_brackets_multiply_and_divide(text, more, less):
    [[piece]] = weighted("(" * more + "[" * less + text + "]" * less + ")" * more)
    assert piece.weight == pytest.approx(1.1 ** (more - less))


@given(st.text(alphabet="abc()[]\\ "))
def test_escapes_bring_back_the_text(text):
    escaped = "".join(f"\\{character}" if character in "()[]\\" else character for character in text)
    assert weighted(escaped) == (((Piece(text, 1.0),) if text else ()),)


@given(texts)
def test_no_piece_is_empty(text):
    assert all(piece.text for section in weighted(text) for piece in section)


def test_neighbours_of_equal_weight_are_joined_unless_something_stood_between():
    assert weighted("(a)(b)c") == ((Piece("ab", 1.1), Piece("c", 1.0)),)
    [section] = weighted("(a BREAK BREAK b)")
    assert [piece.text for piece in section] == ["a", "BREAK", "BREAK", "b"]


@pytest.mark.timeout(60)  # quadratic time would take hours
@pytest.mark.parametrize(
    "text",
    ["(" * 100_000, "()" * 50_000, "([" * 25_000 + "])" * 25_000, "(a" * 50_000,
     "([" * 25_000 + "a)]" * 25_000, ":1.3)" * 20_000, "BREAK " * 15_000, " " * 100_000,
     ": " * 50_000, "\\" * 99_999],
    ids=lambda text: text[:6],
)  # fmt: skip
def test_nothing_is_too_deep_or_too_long(text):
    assert weighted(text)
