"""Settings that are put into prompts: what patches networks stands there, as A1111 writes it."""

from collections.abc import Mapping
from typing import Any

from farm.cell import SettingValue
from farm.prompts.grammar import parse
from farm.prompts.patches import tag_of

NONE = "none"
"""Of a file that may be used: that none is."""

PATCH_DEFAULTS: Mapping[str, SettingValue] = {
    "lora": NONE,
    "lora_weight": 1.0,
    "loras": NONE,
    "hypernetwork": NONE,
    "hypernetwork_strength": 1.0,
    "embedding": NONE,
    "negative_embedding": NONE,
}
"""They are no fields of `farm.cell.Settings`: a cell has what they come to in its prompts."""


def put_into_prompts(chosen: dict[str, Any]) -> None:
    """Puts them into the prompts of a combination: embeddings behind a comma, tags last.

    Args:
        chosen: its settings by name; they are changed, and those that are missing added.
    """
    for name, default in PATCH_DEFAULTS.items():
        chosen.setdefault(name, default)
    asked: Mapping[str, Any] = dict(chosen)
    for name, prompt in (("embedding", "prompt"), ("negative_embedding", "negative_prompt")):
        if asked[name] != NONE:
            add = _into_each_part if prompt == "prompt" else _behind
            chosen[prompt] = add(chosen[prompt], asked[name])
    tags = [] if asked["loras"] == NONE else [tag_of("lora", *one) for one in loras_of(asked["loras"])]
    for kind, name, weight in (
        ("lora", "lora", "lora_weight"),
        ("hypernet", "hypernetwork", "hypernetwork_strength"),
    ):
        if asked[name] != NONE and asked[weight]:
            tags.append(tag_of(kind, asked[name], asked[weight]))
    if tags:
        chosen["prompt"] = " ".join(filter(None, (chosen["prompt"], *tags)))


def _behind(text: str, name: str) -> str:
    return ", ".join(filter(None, (text, name)))


def _into_each_part(prompt: str, name: str) -> str:
    """A name behind what each part that AND joins says, and before its weight; tags come last then."""
    read = parse(prompt)
    if len(read.parts) == 1 and not read.parts[0].ending.strip():
        return _behind(prompt, name)
    parts = []
    for part in read.parts:
        text = str(part)
        said = text[: len(text) - len(part.ending)]
        parts.append(f"{_behind(said.rstrip(), name)}{part.ending or said[len(said.rstrip()) :]}")
    return "".join(("AND".join(parts), *map(str, read.tags)))


def without_patches(name: str, text: str, chosen: Mapping[str, Any]) -> str:
    """What a prompt says beside what was put into it.

    Args:
        name: of the prompt's setting.
        text: as `put_into_prompts` left it.
        chosen: the settings that were put into it.
    """
    alone = {"prompt": "", "negative_prompt": "", **chosen}
    put_into_prompts(alone)
    added: str = alone[name]
    return text[: -len(added)].rstrip(" ,") if added and text.endswith(added) else text


def loras_of(text: str) -> list[tuple[str, float]]:
    """The LoRA that a text such as ``inkA:0.8 + inkB`` names, with their weights.

    Raises:
        ValueError: a weight is no number.
    """
    found = []
    for part in text.split(" + "):
        name, _, weight = part.strip().rpartition(":")
        found.append((name, float(weight)) if name else (weight, 1.0))
    return found
