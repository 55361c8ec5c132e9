import pytest

from farm.errors import FarmError
from farm.prompts.emphasis import weighted
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
