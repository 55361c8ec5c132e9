from dataclasses import replace
from pathlib import Path

import pytest
import torch

from farm.cell import Settings
from farm.weights.catalog import find_models
from farm.weights.named import Named, by_content, embeddings_in
from tests.weights.original_files import tiny, write
from tests.weights.test_catalog import lay

WANTED = Settings("m", "a cat")


@pytest.fixture
def named(tmp_path: Path) -> Named:
    lay(tmp_path, "Stable-diffusion/m.ckpt", "VAE/fine.pt", "Lora/ink.safetensors",
        "Lora/old/Wash.safetensors", "Lora/a/x.pt", "Lora/b/x.pt", "hypernetworks/pen.pt",
        "embeddings/bad-art.pt", "embeddings/bad.pt")  # fmt: skip
    return Named(find_models([tmp_path]))


@pytest.mark.parametrize(
    ("prompt", "negative", "uses"),
    [
        ("a cat", "", []),
        ("<lora:ink:1>", "", [("lora", "ink")]),
        ("<lora:INK:1>", "", [("lora", "INK")]),
        ("<lora:ink.safetensors:1>", "", [("lora", "ink.safetensors")]),
        ("<lora:old/Wash:1> <lora:wash:0.5>", "", [("lora", "old/Wash"), ("lora", "wash")]),
        ("<lora:ink:0>", "", []),
        ("<lora:nobody:1>", "", []),
        ("<lora:x:1>", "", []),  # which could be two
        ("<lora:a/x:1>", "", [("lora", "a/x")]),
        ("<hypernet:pen:0.5><lyco:ink>", "", [("hypernetwork", "pen"), ("lora", "ink")]),
        ("a BAD-art cat, badly", "bad", [("embedding", "bad"), ("embedding", "bad-art")]),
        ("a cat", "<lora:ink:1>", []),
    ],
)
def test_prompts_name_files(prompt: str, negative: str, uses: list[tuple[str, str]], named: Named) -> None:
    found = named.uses(replace(WANTED, prompt=prompt, negative_prompt=negative))
    assert sorted(found) == uses
    assert all(entry.kind == kind for (kind, _), entry in found.items())


def test_a_vae_is_named_by_its_setting(named: Named) -> None:
    [(use, entry)] = named.uses(replace(WANTED, vae="fine")).items()
    assert use == ("vae", "fine") and entry.path.name == "fine.pt"


def test_all_that_a_tag_may_mean_is_known(named: Named) -> None:
    [(name, entries)] = named.ambiguous(replace(WANTED, prompt="<lora:x:1><lora:ink:1>")).items()
    assert name == "x" and [entry.name for entry in entries] == ["a/x", "b/x"]


def test_embeddings_are_named_by_words_of_their_own() -> None:
    wanted = replace(WANTED, prompt="(bad-art:1.2), sinbad bad_art <lora:bad:1>", negative_prompt="Bad-Art")
    assert embeddings_in(wanted, {"bad-art": 1, "bad": 1, "sin": 1}) == ["bad-art"]
    assert embeddings_in(replace(wanted, negative_prompt="<lora:bad:1>"), {"bad": 1}) == ["bad"]


def test_of_embeddings_of_one_name_the_one_that_fits_is_meant(tmp_path: Path) -> None:
    write(tiny("sd1"), tmp_path / "Stable-diffusion" / "one.safetensors", torch.float16)
    write(tiny("sdxl"), tmp_path / "Stable-diffusion" / "xl.safetensors", torch.float16)
    for name, vectors in {
        "sd15/bad": {"x": torch.zeros(2, 64)},
        "sd20/bad": {"x": torch.zeros(2, 1024)},
        "sdxl/bad": {"clip_l": torch.zeros(2, 64), "clip_g": torch.zeros(2, 128)},
        "sd15/cat": {"string_to_param": {"*": torch.zeros(2, 64)}},
    }.items():
        path = tmp_path / "embeddings" / f"{name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vectors, path)
    named = Named(find_models([tmp_path]))
    one, xl = (Settings(model, "a cat", "bad") for model in ("one", "xl"))
    assert sorted(name for _, name in named.uses(one)) == ["sd15/bad", "sd15/cat"]
    assert sorted(name for _, name in named.uses(xl)) == ["sdxl/bad"]
    assert (named.words(one), named.words(xl)) == ([], ["cat"])


CONTENTS = {("lora", "ink"): "1" * 64, ("lora", "pen"): "2" * 64, ("hypernetwork", "h"): "3" * 64,
            ("hypernetwork", "i"): "4" * 64}  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "other"),
    [
        ("a cat<lora:ink:1>", "a cat<lora:ink:0.5><lora:ink:0.5>"),
        ("a cat<lora:ink:1><lora:pen:2>", "a <lora:pen:2>cat<lora:ink:1>"),
        ("a cat<lora:ink:1>", "a cat<lora:ink:1><lora:nobody:1>"),
        ("a cat", "a cat<lora:ink:0>"),
    ],
)
def test_tags_that_do_the_same_count_alike(prompt: str, other: str) -> None:
    assert by_content(prompt, CONTENTS) == by_content(other, CONTENTS)


def test_tags_that_do_something_else_count_for_themselves() -> None:
    prompts = [
        "a cat", "a cat<lora:ink:1>", "a cat<lora:ink:0.5>", "a cat<lora:ink:1:0.5>", "a cat<lora:pen:1>",
        "a cat<hypernet:h:1>", "a cat<hypernet:h:1><hypernet:i:1>", "a cat<hypernet:i:1><hypernet:h:1>",
        "a dog<lora:ink:1>",
    ]  # fmt: skip
    assert len({by_content(prompt, CONTENTS) for prompt in prompts}) == len(prompts)
    assert by_content("a cat", CONTENTS) == "a cat"  # as in all keys of before
    renamed = {**CONTENTS, ("lora", "other name"): "1" * 64}
    assert by_content("a cat<lora:other name:1>", renamed) == by_content("a cat<lora:ink:1>", renamed)
