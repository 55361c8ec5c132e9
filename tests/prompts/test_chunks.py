from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.prompts.chunks import Chunk, chunked
from farm.prompts.emphasis import Piece, weighted
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
