import pytest

from farm.patch_settings import PATCH_DEFAULTS, loras_of, put_into_prompts, without_patches
from farm.prompts.grammar import parse


@pytest.mark.parametrize(
    ("asked", "prompt", "negative"),
    [
        ({}, "a cat", "blurry"),
        ({"lora": "ink"}, "a cat <lora:ink:1>", "blurry"),
        ({"lora": "ink", "lora_weight": 0.5}, "a cat <lora:ink:0.5>", "blurry"),
        ({"lora": "ink", "lora_weight": 0.0}, "a cat", "blurry"),
        ({"lora_weight": 0.5}, "a cat", "blurry"),
        ({"loras": "a:0.5 + b:1"}, "a cat <lora:a:0.5> <lora:b:1>", "blurry"),
        ({"hypernetwork": "pen", "hypernetwork_strength": -0.5}, "a cat <hypernet:pen:-0.5>", "blurry"),
        ({"embedding": "nice"}, "a cat, nice", "blurry"),
        ({"negative_embedding": "bad"}, "a cat", "blurry, bad"),
        ({"embedding": "nice", "lora": "ink"}, "a cat, nice <lora:ink:1>", "blurry"),
    ],
)
def test_they_come_behind_the_prompts(asked, prompt, negative):
    chosen = {"prompt": "a cat", "negative_prompt": "blurry", **asked}
    put_into_prompts(chosen)
    assert (chosen["prompt"], chosen["negative_prompt"]) == (prompt, negative)
    assert chosen.keys() >= PATCH_DEFAULTS.keys()
    assert without_patches("prompt", prompt, asked) == "a cat"
    assert without_patches("negative_prompt", negative, asked) == "blurry"


def test_an_empty_prompt_has_them_alone():
    chosen = {"prompt": "", "negative_prompt": "", "embedding": "nice", "lora": "ink"}
    put_into_prompts(chosen)
    assert chosen["prompt"] == "nice <lora:ink:1>"
    assert without_patches("prompt", chosen["prompt"], {"embedding": "nice", "lora": "ink"}) == ""


def test_what_was_not_put_there_stays():
    assert without_patches("prompt", "a cat <lora:ink:1>", {"lora": "other"}) == "a cat <lora:ink:1>"
    assert without_patches("prompt", "a cat <lora:ink:1>", {}) == "a cat <lora:ink:1>"


def test_several_have_names_with_colons_too():
    assert loras_of("a:0.5 + b") == [("a", 0.5), ("b", 1.0)]
    assert loras_of("a:b:2") == [("a:b", 2.0)]


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a cat AND a dog :0.5", "a cat, nice AND a dog, nice :0.5"),
        ("a cat :2", "a cat, nice :2"),
        ("a cat <lora:ink:1> AND a dog:0.5", "a cat, nice  AND a dog, nice:0.5<lora:ink:1>"),
        ("a cat <lora:ink:1>", "a cat <lora:ink:1>, nice"),
        ("[cat:dog:0.5] AND b", "[cat:dog:0.5], nice AND b, nice"),
    ],
)
def test_an_embedding_is_part_of_each_part_and_takes_no_weight_away(prompt, wanted):
    chosen = {"prompt": prompt, "negative_prompt": "", "embedding": "nice"}
    put_into_prompts(chosen)
    assert chosen["prompt"] == wanted
    before, after = parse(prompt), parse(wanted)
    assert [part.weight for part in after.parts] == [part.weight for part in before.parts]
