import pytest
import torch

from farm.errors import FarmError
from farm.prompts.emphasis import weighted
from farm.weights.embedding import read_embedding
from farm.weights.tokenizer import tokenizer_of


def test_clip_s_own_tokenizer_is_there():
    """The ids are those of openai/clip-vit-large-patch14."""
    tokenizer = tokenizer_of(None)
    assert tokenizer.ids("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert (tokenizer.comma, tokenizer.room) == (267, 75)
    [chunk] = tokenizer.chunks(weighted("a (cat:1.3)"))
    assert tokenizer.filled(chunk) == (49406, 320, 2368, 49407, *[49407] * 73)


def test_a_checkpoint_has_its_own(tiny_model):
    tokenizer = tokenizer_of(tiny_model)
    assert tokenizer.words(tokenizer.ids("ginger cat")) == ["ginger</w>", "cat</w>"]


def test_a_folder_without_one_says_so(tmp_path):
    with pytest.raises(FarmError, match="cannot be read"):
        tokenizer_of(tmp_path)


KNOWN = ("EasyNegative", "bad-hands-5", "bad", "verybadimagenegative_v1.3", "<cat-toy>", "21charturnerv2")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("easynegative, a cat", ["EasyNegative", ",", "a", "cat"]),
        ("(EasyNegative:1.2)(bad-hands-5:0.8)", ["EasyNegative", "bad-hands-5"]),
        ("a photo of <cat-toy>", ["a", "photo", "of", "<cat-toy>"]),
        ("21charturnerv2 cat", ["21charturnerv2", "cat"]),
        ("masterpiece,verybadimagenegative_v1.3", ["masterpiece", ",", "verybadimagenegative_v1.3"]),
        ("bad anatomy", ["bad", "anatomy"]),
        ("bad-hands", ["bad", "-", "hands"]),
        ("badly drawn", ["badly", "drawn"]),  # a word of its own
        ("bad's", ["bad", "'s"]),
        ("sinbad", ["sin", "bad"]),  # which the tokenizer cuts there: as in A1111
        ("easynegatives", ["easy", "neg", "atives"]),
    ],
)
def test_names_of_embeddings_are_found_among_the_tokens_of_clip(text: str, found: list[str]) -> None:
    vectors = torch.zeros(2, 768)
    embeddings = {name: read_embedding({"*": vectors}, name, f"sha of {name}") for name in KNOWN}
    tokenizer = tokenizer_of(None).knowing(embeddings)
    [chunk] = tokenizer.chunks(weighted(text))
    words = [word.removesuffix("</w>") for word in tokenizer.words(chunk.tokens)]
    assert words == [
        part for word in found for part in ([f"{word}#1", f"{word}#2"] if word in KNOWN else [word])
    ]
