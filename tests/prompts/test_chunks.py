from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import CellFailed
from farm.prompts.chunks import Chunk, chunked
from farm.prompts.emphasis import Piece, weighted
from farm.prompts.vectors import Name, Names, Vector
from farm.weights.tokenizer import Tokenizer, load_tokenizer
from tests.prompts.documented import CHUNKS, CHUNKS_BY_TOKENIZER

MODEL = Path(__file__).parents[2] / "models" / "Stable-diffusion" / "tiny-cats"
COMMA = 44


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(load_tokenizer(MODEL / "tokenizer"), 77)


@pytest.mark.parametrize(("text", "counts", "source"), CHUNKS)
def test_counts_are_as_documented(text, counts, source, tokenizer):
    assert [len(chunk.tokens) for chunk in tokenizer.chunks(weighted(text))] == counts, source


@pytest.mark.parametrize(("text", "counts", "of_clip", "source"), CHUNKS_BY_TOKENIZER)
def test_counts_of_the_included_model_are_as_documented(text, counts, of_clip, source, tokenizer):
    assert [len(chunk.tokens) for chunk in tokenizer.chunks(weighted(text))] == counts, source


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def chunks_of(text: str) -> list[str]:
    made = chunked([(Piece(text, 1.0),)], letters, COMMA, 75)
    return ["".join(map(chr, chunk.tokens)) for chunk in made]


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("", [""]),
        ("a" * 75, ["a" * 75]),
        ("a" * 76, ["a" * 75, "a"]),
        ("a" * 55 + "," + "b" * 20, ["a" * 55 + ",", "b" * 20]),  # the comma is the 20th from the end
        ("a" * 54 + "," + "b" * 21, ["a" * 54 + "," + "b" * 20, "b"]),
        ("a" * 60 + ",bb," + "c" * 20, ["a" * 60 + ",bb,", "c" * 20]),
        ("a" * 75 + ",b", ["a" * 75, ",b"]),
        ("a" * 74 + ",b", ["a" * 74 + ",", "b"]),
    ],
)
def test_a_full_chunk_goes_back_to_a_comma(text, chunks):
    assert chunks_of(text) == chunks


def test_breaks_end_chunks():
    sections = weighted("a BREAK BREAK (b:2) BREAK")
    made = chunked(sections, letters, COMMA, 75)
    assert made == [Chunk((97,), (1.0,)), Chunk(), Chunk((98,), (2.0,))]
    assert chunked(weighted("BREAK"), letters, COMMA, 75) == [Chunk()]


@settings(max_examples=200)
@given(st.text(alphabet="ab,", max_size=400))
def test_no_token_is_lost(text):
    chunks = chunks_of(text)
    assert "".join(chunks) == text
    assert all(len(chunk) <= 75 for chunk in chunks)
    assert all(len(chunk) >= 55 for chunk in chunks[:-1])


def test_the_encoder_is_given_all_positions(tokenizer):
    [chunk] = tokenizer.chunks(weighted("a cat"))
    filled = tokenizer.filled(chunk)
    assert len(filled) == 77 and filled[1:3] == chunk.tokens and len(set(filled[3:])) == 1
    assert tokenizer.words(chunk.tokens) == ["a</w>", "cat</w>"]


# Embeddings


def named(**counts: int) -> Names:
    """By words of letters, with so many vectors."""
    return Names(
        [Name(name, tuple(letters(name)), name.upper(), count) for name, count in counts.items()], 75
    )


def shown(chunks: list[Chunk]) -> list[str]:
    """Letters as they are, and of vectors the first letter of their key and the number."""
    return [
        "".join(f"{one.key[0]}{one.index}" if isinstance(one, Vector) else chr(one) for one in chunk.tokens)
        for chunk in chunks
    ]


def with_names(text: str, names: Names) -> list[Chunk]:
    return chunked(weighted(text), letters, COMMA, 75, names)


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("a xy b", ["a X0X1 b"]),
        ("xyxy", ["X0X1X0X1"]),
        ("xyz", ["Y0"]),  # the longest name that stands there
        ("xyzxy", ["Y0X0X1"]),
        ("wxy", ["wX0X1"]),
        ("x y", ["x y"]),
        ("x", ["x"]),
        ("a xy, BREAK xy", ["a X0X1,", "X0X1"]),
        # as many tokens as vectors, whatever its name has
        ("a" * 73 + "xy", ["a" * 73 + "X0X1"]),
        ("a" * 74 + "xy", ["a" * 74, "X0X1"]),  # not divided, and without going back to a comma
        ("a" * 60 + "," + "a" * 13 + "xy", ["a" * 60 + "," + "a" * 13, "X0X1"]),
        ("a" * 60 + "," + "a" * 13 + "xy" + "b" * 74, ["a" * 60 + "," + "a" * 13, "X0X1" + "b" * 73, "b"]),
        # where the chunk is full before it, that goes back to a comma
        ("a" * 60 + "," + "b" * 14 + "xy", ["a" * 60 + ",", "b" * 14 + "X0X1"]),
        ("a" * 75 + "xy", ["a" * 75, "X0X1"]),
        # vectors behind the last comma go along, all of them
        ("a" * 60 + "," + "xy" + "b" * 13, ["a" * 60 + ",", "X0X1" + "b" * 13]),
        ("a" * 54 + "," + "b" * 19 + "xyc", ["a" * 54 + "," + "b" * 19, "X0X1c"]),
    ],
)
def test_names_are_vectors(text: str, chunks: list[str]) -> None:
    names = Names([Name("xy", tuple(letters("xy")), "X", 2), Name("xyz", tuple(letters("xyz")), "Y", 1)], 75)
    assert shown(with_names(text, names)) == chunks


def test_vectors_have_the_weight_of_their_piece_and_names_end_with_it() -> None:
    names = named(xy=2)
    [chunk] = with_names("a(xy:1.5)b", names)
    assert shown([chunk]) == ["aX0X1b"] and chunk.weights == (1.0, 1.5, 1.5, 1.0)
    assert shown(with_names("(x:1.5)y", names)) == ["xy"]


def test_equal_texts_of_other_embeddings_differ() -> None:
    one, other = (Names([Name("xy", tuple(letters("xy")), key, 1)], 75) for key in ("X", "Y"))
    assert with_names("xy", one) != with_names("xy", other)
    assert with_names("xy", one) == with_names("xy", one) and with_names("a", one) == with_names("a", other)
    assert len({*with_names("xy", one), *with_names("xy", other), *with_names("xy", one)}) == 2


def test_of_names_of_the_same_tokens_the_first_counts() -> None:
    same = Names([Name("xy", (120, 121), "A", 1), Name("XY", (120, 121), "B", 1), Name("", (), "C", 1)], 75)
    assert shown(with_names("xy", same)) == ["A0"]


def test_an_embedding_that_is_larger_than_a_chunk_is_refused_where_it_is_named() -> None:
    names = named(xy=76, z=75)
    assert shown(with_names("az", names)) == ["a", "".join(f"Z{index}" for index in range(75))]
    with pytest.raises(CellFailed, match="the embedding 'xy' has 76 vectors: the text encoder takes 75 at"):
        with_names("axy", names)


@settings(max_examples=200)
@given(st.text(alphabet="axy,", max_size=300), st.integers(1, 75))
def test_no_vector_is_lost_or_parted_from_its_own(text: str, count: int) -> None:
    chunks = with_names(text, named(xy=count))
    whole = "".join(f"X{index}" for index in range(count))
    assert "".join(shown(chunks)) == text.replace("xy", whole)
    assert all(one.count("X0") * whole.count("X") == one.count("X") for one in shown(chunks))
    assert all(len(chunk.tokens) <= 75 for chunk in chunks)


@settings(max_examples=100)
@given(st.text(alphabet="ab,", max_size=400))
def test_texts_without_names_are_as_without_embeddings(text: str) -> None:
    assert chunked(weighted(text), letters, COMMA, 75, named(xy=3)) == chunked(
        weighted(text), letters, COMMA, 75
    )
