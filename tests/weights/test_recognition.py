import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from farm.weights.catalog import Entry
from farm.weights.facts import Facts
from farm.weights.looking import Looking
from farm.weights.places import Kind
from tests.weights.original_files import Tiny, original_vae, tiny, write

T = torch.zeros
DOWN = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"

FILES: dict[str, tuple[Any, tuple[Kind | None, str, str]]] = {
    "kohya, sd1": ({DOWN: T(4, 768)}, (Kind.LORA, "sd1", "lora")),
    "kohya, sd2": ({DOWN: T(4, 1024)}, (Kind.LORA, "sd2", "lora")),
    "kohya, sdxl": ({DOWN: T(4, 2048)}, (Kind.LORA, "sdxl", "lora")),
    "peft": ({"unet.mid.attn2.to_k.lora_A.weight": T(4, 768)}, (Kind.LORA, "sd1", "lora")),
    "early diffusers": (
        {"unet.mid.attn2.processor.to_k_lora.down.weight": T(4, 768)}, (Kind.LORA, "sd1", "lora")
    ),
    "text alone": (
        {"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": T(4, 768)},
        (Kind.LORA, "sd1", "lora"),
    ),
    "sdxl's text": (
        {"lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": T(4, 1280)},
        (Kind.LORA, "sdxl", "lora"),
    ),
    "convolutions": (
        {DOWN: T(4, 768), "lora_unet_mid_conv1.lora_down.weight": T(4, 32, 3, 3)}, (Kind.LORA, "sd1", "locon")
    ),
    "loha": ({DOWN.replace("lora_down.weight", "hada_w1_a"): T(4, 4)}, (Kind.LORA, "", "loha")),
    "lokr": ({DOWN.replace("lora_down.weight", "lokr_w1"): T(4, 4)}, (Kind.LORA, "", "lokr")),
    "diffusers' text encoder": (
        {"text_encoder.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight": T(4, 768)},
        (Kind.LORA, "sd1", "lora"),
    ),
    "differences alone": ({"lora_unet_mid_conv1.diff": T(4, 4, 3, 3)}, (Kind.LORA, "", "locon")),
    "embedding of a1111": (
        {"string_to_token": {"*": 265}, "string_to_param": {"*": T(2, 768)}, "name": "bad", "step": 500},
        (Kind.EMBEDDING, "sd1", ""),
    ),
    "embedding of diffusers": ({"<cat>": T(1024)}, (Kind.EMBEDDING, "sd2", "")),
    "embedding of kohya": ({"emb_params": T(3, 768)}, (Kind.EMBEDDING, "sd1", "")),
    "embedding of sdxl": ({"clip_l": T(2, 768), "clip_g": T(2, 1280)}, (Kind.EMBEDDING, "sdxl", "")),
    "aesthetic embedding": (T(1, 768), (Kind.AESTHETIC_EMBEDDING, "", "")),
    "hypernetwork": (
        {768: ({"linear.0.weight": T(8, 4)}, {"linear.0.weight": T(8, 4)}), "step": 1, "name": "pen"},
        (Kind.HYPERNETWORK, "sd1", ""),
    ),
    "esrgan": ({"model.0.weight": T(8, 3, 3, 3)}, (Kind.UPSCALER, "", "")),
    "newer esrgan": ({"params_ema": {"conv_first.weight": T(8, 3, 3, 3)}}, (Kind.UPSCALER, "", "")),
    "anything else": ({"weight": T(4, 4), "bias": T(4)}, (None, "", "")),
}  # fmt: skip


def look(path: Path, kind: Kind = Kind.LORA) -> Facts:
    return Looking(path.with_name("cache.json")).at(Entry(kind, path.stem, path, path.name))


@pytest.mark.parametrize("called", FILES)
def test_files_are_told_from_their_headers(called: str, tmp_path: Path) -> None:
    content, wanted = FILES[called]
    torch.save(content, tmp_path / "a.pt")
    facts = look(tmp_path / "a.pt")
    assert (facts.kind, facts.family, facts.form) == wanted and facts.fault == ""
    if isinstance(content, dict) and all(isinstance(value, torch.Tensor) for value in content.values()):
        save_file(content, tmp_path / "a.safetensors")
        assert look(tmp_path / "a.safetensors") == facts


@pytest.mark.parametrize(
    ("family", "channels", "called"), [("sd1", 4, "sd1"), ("sd1", 9, "sd1-inpainting"), ("sdxl", 4, "sdxl")]
)
def test_checkpoints_are_told_by_their_families(
    family: str, channels: int, called: str, tmp_path: Path
) -> None:
    facts = look(write(tiny(family, channels), tmp_path / "a.ckpt", torch.float16))
    assert facts == Facts(Kind.CHECKPOINT, called)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_a_vae_is_none_of_these(prefix: str, sd1: Tiny, tmp_path: Path) -> None:
    save_file(
        {prefix + name: tensor for name, tensor in original_vae(sd1.vae).items()}, tmp_path / "a.safetensors"
    )
    assert look(tmp_path / "a.safetensors").kind is Kind.VAE


def test_what_makers_wrote_into_a_file_is_known(tmp_path: Path) -> None:
    tags = {
        "10_ink": {" ink style": 30, "cat": 12, "dog": 1},
        "reg": {"cat": 3, "a": 1, "b": 1, "c": 1, "d": 1},
    }
    metadata = {
        "ss_sd_model_name": "v1-5-pruned.safetensors", "ss_tag_frequency": json.dumps(tags),
        "sshs_model_hash": "ab" * 32,
    }  # fmt: skip
    save_file({DOWN: T(4, 768)}, tmp_path / "a.safetensors", metadata=metadata)
    facts = look(tmp_path / "a.safetensors")
    assert facts.base_model == "v1-5-pruned.safetensors" and facts.said_hash == "ab" * 6
    assert facts.trigger_words == ("ink style", "cat", "dog", "a", "b")
    save_file(
        {DOWN: T(4, 768)},
        tmp_path / "b.safetensors",
        metadata={**metadata, "modelspec.trigger_phrase": "inked"},
    )
    assert look(tmp_path / "b.safetensors").trigger_words == ("inked",)


def test_what_strangers_wrote_cannot_move_a_terminal_s_cursor(tmp_path: Path) -> None:
    metadata = {"modelspec.trigger_phrase": "ink\x1b[2J\nstyle " * 99, "ss_sd_model_name": "a\x07b"}
    save_file({DOWN: T(4, 768)}, tmp_path / "a.safetensors", metadata=metadata)
    facts = look(tmp_path / "a.safetensors")
    assert facts.trigger_words[0].startswith("ink [2J style ink") and len(facts.trigger_words[0]) == 200
    assert facts.base_model == "a b"


@pytest.mark.parametrize("torn", ["{", "[]", '{"a": 3}', '{"a": {"b": "c"}}', "[" * 100_000])
def test_what_nobody_can_read_says_nothing(torn: str, tmp_path: Path) -> None:
    save_file({DOWN: T(4, 768)}, tmp_path / "a.safetensors", metadata={"ss_tag_frequency": torn})
    (tmp_path / "a.json").write_text(torn)
    assert look(tmp_path / "a.safetensors").trigger_words == ()


def test_words_that_users_of_a1111_wrote_down_are_known(tmp_path: Path) -> None:
    save_file({DOWN: T(4, 768)}, tmp_path / "a.safetensors")
    assert look(tmp_path / "a.safetensors").trigger_words == ()
    (tmp_path / "a.json").write_text('{"activation text": "ink, cat", "preferred weight": 0.8}')
    assert look(tmp_path / "a.safetensors").trigger_words == ("ink, cat",)


def test_hypernetworks_and_embeddings_tell_of_their_checkpoint(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": T(768)}, "sd_checkpoint_name": "v1-4"}, tmp_path / "a.pt")
    assert look(tmp_path / "a.pt").base_model == "v1-4"


def test_a_file_that_cannot_be_read_has_its_fault(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"<!DOCTYPE html>")
    assert look(tmp_path / "a.ckpt").fault == "it is a web page: the download went wrong"
    assert look(tmp_path / "gone.ckpt").fault == "cannot be read: No such file or directory"


def test_a_file_is_looked_at_again_when_it_changed(tmp_path: Path) -> None:
    path, cache = tmp_path / "a.pt", tmp_path / "cache.json"
    entry = Entry(Kind.LORA, "a", path, "a.pt")
    torch.save(T(1, 768), path)
    looking = Looking(cache)
    first = looking.at(entry)
    looking.remember()
    cache.write_text(cache.read_text().replace('"family": ""', '"family": "as remembered"'))
    assert Looking(cache).at(entry).family == "as remembered" and first.family == ""
    torch.save({DOWN: T(4, 768)}, path)
    assert Looking(cache).at(entry).family == "sd1"


@pytest.mark.parametrize("torn", ["", "[]", "3", "nothing"])
def test_a_torn_cache_is_made_again(torn: str, tmp_path: Path) -> None:
    path, cache = tmp_path / "a.pt", tmp_path / "cache.json"
    entry = Entry(Kind.LORA, "a", path, "a.pt")
    torch.save({DOWN: T(4, 768)}, path)
    looking = Looking(cache)
    facts = looking.at(entry)
    looking.remember()
    [key] = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: torn}) if torn == "nothing" else torn)
    assert Looking(cache).at(entry) == facts
