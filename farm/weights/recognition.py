"""What a file is, told from its header: names and shapes of its tensors, and what its maker wrote into it."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from farm.weights.architecture import FAMILIES, architecture_in
from farm.weights.contents import BadFile, Contents, TensorInfo
from farm.weights.facts import Facts
from farm.weights.original_layout import UNET, VAE, NotThisLayout
from farm.weights.places import Kind

FAMILY_OF_WIDTH = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""By the width of what cross-attention is told of the text."""

FAMILY_OF_TEXT_WIDTH = {768: "sd1", 1024: "sd2", 1280: "sdxl"}
"""By the width of one text encoder; that of SDXL's second one."""

TAGS_SHOWN = 5
LONGEST = 200
"""Characters of what makers say."""

BASES = ("ss_sd_model_name", "modelspec.architecture", "ss_base_model_version")
"""Of metadata: what tells of the checkpoint that something was trained on, the most telling first."""

LORA_HASH = 12
"""Digits that A1111 shows of a LoRA's hash, which is of its tensors alone; trainers write it down."""

MAX_SIDECAR = 1 << 20


def recognized(contents: Contents, path: Path) -> Facts:
    """What a file is, and is for.

    Args:
        contents: its header.
        path: of the file.
    """
    kind, family, form = _detected(contents)
    fault = ""
    if kind is Kind.CHECKPOINT:
        try:
            family = architecture_in(contents, path).variant
        except (NotThisLayout, BadFile) as error:
            fault = str(error)
    said = contents.metadata
    base = next((said[key] for key in BASES if said.get(key)), "") or _said_inside(contents)
    words = _trigger_words(said) or _beside(path)
    said_hash = said.get("sshs_model_hash", "")[:LORA_HASH]
    return Facts(kind, family, form, _line(base), tuple(map(_line, words)), _line(said_hash), _line(fault))


def _line(text: str) -> str:
    """What a stranger wrote, as a terminal can be given it: of one line, and not too long."""
    shown = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(shown.split())[:LONGEST]


def kind_of(contents: Contents) -> Kind | None:
    """What a file is; None if nobody knows.

    Args:
        contents: its header.
    """
    return _detected(contents)[0]


def _detected(contents: Contents) -> tuple[Kind | None, str, str]:
    found = ((kind, detect(contents)) for kind, detect in DETECTORS)
    return next(((kind, *seen) for kind, seen in found if seen is not None), (None, "", ""))


Found = tuple[str, str] | None
"""A family and a form, either of which may be empty; None if a file is not of the kind."""


def _checkpoint(contents: Contents) -> Found:
    names = contents.tensors
    family = next((row.name for row in FAMILIES if row.mark in names), "")
    return (family, "") if family or any(name.startswith(UNET) for name in names) else None


def _lora(contents: Contents) -> Found:
    tensors = contents.tensors
    form = next((form for mark, form in LORA_MARKS.items() if any(mark in name for name in tensors)), "")
    if not form:
        return None
    if form == "lora" and any(len(info.shape) == 4 and info.shape[2] > 1 for info in tensors.values()):
        form = "locon"
    return _lora_family(tensors), form


LORA_MARKS = {
    ".hada_w1_a": "loha",
    ".lokr_w": "lokr",
    ".lora_down.weight": "lora",
    ".lora.down.weight": "lora",
    "_lora.down.weight": "lora",
    ".lora_linear_layer.down.weight": "lora",
    ".lora_A.": "lora",
    ".lora_B.": "lora",
    ".diff": "lora",
    ".diff_b": "lora",
    ".w_norm": "lora",
}
"""What stands in the names of tensors, and what that makes of them."""

_DOWN = (
    ".lora_down.weight",
    ".lora.down.weight",
    "_lora.down.weight",
    ".lora_linear_layer.down.weight",
    ".lora_A.weight",
    ".hada_w1_b",
)


def _lora_family(tensors: Mapping[str, TensorInfo]) -> str:
    for name, info in tensors.items():
        if name.startswith(("lora_te1_", "lora_te2_", "text_encoder_2.")):
            return "sdxl"
        is_down = name.endswith(_DOWN) and len(info.shape) > 1
        if is_down and ("attn2_to_k" in name or "attn2.to_k" in name or "attn2.processor.to_k" in name):
            return FAMILY_OF_WIDTH.get(info.shape[1], "")
    for name, info in tensors.items():
        if name.startswith(("lora_te_", "text_encoder.")) and name.endswith(_DOWN) and "self_attn" in name:
            return FAMILY_OF_TEXT_WIDTH.get(info.shape[1], "")
    return ""


def _vae(contents: Contents) -> Found:
    names = contents.tensors
    decoders = (f"{prefix}decoder.conv_in.weight" for prefix in ("", VAE))
    return ("", "") if any(name in names for name in decoders) else None


def _hypernetwork(contents: Contents) -> Found:
    tree = contents.tree if isinstance(contents.tree, Mapping) else {}
    widths = [key for key, value in tree.items() if isinstance(key, int) and isinstance(value, tuple | list)]
    if not widths:
        return None
    return next((FAMILY_OF_WIDTH[width] for width in widths if width in FAMILY_OF_WIDTH), ""), ""


def _embedding(contents: Contents) -> Found:
    tree = contents.tree if isinstance(contents.tree, Mapping) else {}
    if "clip_g" in tree:
        return "sdxl", ""
    vectors = tree.get("string_to_param", tree)
    found = list(_leaves(vectors))
    if len(found) != 1 or len(found[0].shape) not in (1, 2):
        return None
    return FAMILY_OF_TEXT_WIDTH.get(found[0].shape[-1], ""), ""


def _aesthetic_embedding(contents: Contents) -> Found:
    is_one = isinstance(contents.tree, TensorInfo) and len(contents.tree.shape) == 2
    return ("", "") if is_one else None


def _upscaler(contents: Contents) -> Found:
    """Some have their weights under `params` or `params_ema`."""
    tree = contents.tree if isinstance(contents.tree, Mapping) else {}
    inside = [name for part in tree.values() if isinstance(part, Mapping) for name in part]
    names = [name for name in (*contents.tensors, *inside) if isinstance(name, str)]
    return ("", "") if any(name.endswith(UPSCALER_MARKS) for name in names) else None


UPSCALER_MARKS = (
    "conv_first.weight",
    "model.0.weight",
    "body.0.weight",
    "m_head.0.weight",
    "conv_last.weight",
)
"""The ends of names of tensors of ESRGAN and its like."""

DETECTORS: tuple[tuple[Kind, Callable[[Contents], Found]], ...] = (
    (Kind.CHECKPOINT, _checkpoint),
    (Kind.LORA, _lora),
    (Kind.VAE, _vae),
    (Kind.HYPERNETWORK, _hypernetwork),
    (Kind.AESTHETIC_EMBEDDING, _aesthetic_embedding),
    (Kind.EMBEDDING, _embedding),
    (Kind.UPSCALER, _upscaler),
)
"""The first that finds something says what a file is."""


def _leaves(tree: Any) -> Iterator[TensorInfo]:
    if isinstance(tree, TensorInfo):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            if isinstance(value, TensorInfo):  # not deeper: what lies there is no embedding's vector
                yield value


def _said_inside(contents: Contents) -> str:
    """Embeddings and hypernetworks name the checkpoint that they were trained on."""
    said = contents.tree.get("sd_checkpoint_name") if isinstance(contents.tree, Mapping) else None
    return said if isinstance(said, str) else ""


def _trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """As Stability's model specification has them; else the most frequent tags of kohya's trainer."""
    if phrase := metadata.get("modelspec.trigger_phrase"):
        return (phrase,)
    counted: Counter[str] = Counter()
    with suppress(ValueError, RecursionError):  # who wrote it did not write what readers expect
        found = json.loads(metadata.get("ss_tag_frequency", "{}"))
        for tags in found.values() if isinstance(found, dict) else ():
            if isinstance(tags, dict):
                counted.update({tag.strip(): many for tag, many in tags.items() if isinstance(many, int)})
    return tuple(tag for tag, _ in counted.most_common(TAGS_SHOWN))


def _beside(path: Path) -> tuple[str, ...]:
    """What A1111 keeps in a JSON file beside a file: the words that its user wrote down."""
    beside = path.with_suffix(".json")
    with suppress(OSError, ValueError, RecursionError):
        if beside.stat().st_size <= MAX_SIDECAR:
            said = json.loads(beside.read_text(encoding="utf-8"))
            words = said.get("activation text") if isinstance(said, dict) else None
            return (words,) if isinstance(words, str) and words else ()
    return ()
