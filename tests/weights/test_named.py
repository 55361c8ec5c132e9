from dataclasses import replace
from pathlib import Path

import pytest

from farm.cell import Settings
from farm.weights.catalog import find_models
from farm.weights.named import Named, embeddings_in
from tests.weights.test_catalog import lay

WANTED = Settings("m", "a cat")


@pytest.fixture
def named(tmp_path: Path) -> Named:
    lay(tmp_path, "VAE/fine.pt", "Lora/ink.safetensors", "Lora/old/Wash.safetensors", "Lora/a/x.pt",
        "Lora/b/x.pt", "hypernetworks/pen.pt", "embeddings/bad-art.pt", "embeddings/bad.pt")  # fmt: skip
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


def test_all_that_a_name_may_mean_is_known(named: Named) -> None:
    [entries] = named.matches(replace(WANTED, prompt="<lora:x:1>")).values()
    assert [entry.name for entry in entries] == ["a/x", "b/x"]


def test_embeddings_are_named_by_words_of_their_own() -> None:
    wanted = replace(WANTED, prompt="(bad-art:1.2), sinbad bad_art", negative_prompt="Bad-Art")
    assert embeddings_in(wanted, {"bad-art": 1, "bad": 1, "sin": 1}) == ["bad-art"]
