import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.training_utils import _collate_lora_metadata
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file

from farm.errors import CellFailed
from farm.weights.checkpoint import Networks, load_checkpoint
from farm.weights.layers import names_of
from farm.weights.lora import Lora, read_lora
from farm.weights.lora_keys import key_of
from tests.weights.lora_files import SDXL, factors, kohya, product, tiny_sdxl, weighted

Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def cats(tiny_model: Path) -> Networks:
    return load_checkpoint(tiny_model, torch.device("cpu"), torch.float32)


def read(tensors: Tensors, networks: Networks, **others: Any) -> Lora:
    return read_lora(tensors, networks.unet, networks.text_encoder, **others)


def same(deltas: Any, layers: Factors, scale: float = 1) -> None:
    assert deltas.keys() == layers.keys()
    for path, each in layers.items():
        torch.testing.assert_close(deltas[path].matrix(), scale * product(*each), rtol=1e-5, atol=1e-7)


# names


def dotted(down: str, up: str, before: str = "") -> Callable[[str], tuple[str, str]]:
    return lambda path: (f"{before}{path}.{down}", f"{before}{path}.{up}")


def old_processor(path: str) -> tuple[str, str]:
    """As diffusers 0.14 names them, of attention only."""
    path = path.replace("to_out.0", "to_out").replace("out_proj", "to_out")
    layer, _, last = path.rpartition(".")
    processor = "" if "self_attn" in path else ".processor"
    last = f"to_{last[0]}" if last.endswith("_proj") else last
    return f"{layer}{processor}.{last}_lora.down.weight", f"{layer}{processor}.{last}_lora.up.weight"


UNET = {
    "kohya": lambda path: kohya_names(f"lora_unet_{path}"),
    "diffusers": dotted("lora_A.weight", "lora_B.weight", "unet."),
    "diffusers, once": dotted("lora.down.weight", "lora.up.weight", "unet."),
    "diffusers, at first": lambda path: tuple(f"unet.{name}" for name in old_processor(path)),
    "a UNet's attention processors": old_processor,
    "PEFT": dotted("lora_A.weight", "lora_B.weight", "base_model.model."),
    "PEFT, by a name": dotted("lora_A.default_0.weight", "lora_B.default_0.weight", "base_model.model."),
    "PEFT, in a pipeline": dotted("lora_A.weight", "lora_B.weight", "unet.base_model.model."),
    "a bare UNet's": dotted("lora_A.weight", "lora_B.weight"),
    "ComfyUI": dotted("lora_down.weight", "lora_up.weight", "diffusion_model."),
}
TEXT = {
    "kohya": lambda path: kohya_names(f"lora_te_text_model_{path}"),
    "diffusers": dotted("lora_A.weight", "lora_B.weight", "text_encoder."),
    "with text_model": dotted("lora_A.weight", "lora_B.weight", "text_encoder.text_model."),
    "diffusers, once": dotted(
        "lora_linear_layer.down.weight", "lora_linear_layer.up.weight", "text_encoder.text_model."
    ),
    "diffusers, at first": lambda path: tuple(
        f"text_encoder.text_model.{each}" for each in old_processor(path)
    ),
    "PEFT": dotted("lora_A.weight", "lora_B.weight", "base_model.model.text_model."),
}


def kohya_names(layer: str) -> tuple[str, str]:
    name = layer.replace(".", "_")
    return f"{name}.lora_down.weight", f"{name}.lora_up.weight"


def named(layers: Factors, names: Callable[[str], tuple[str, str]]) -> Tensors:
    return {
        name: tensor for path, each in layers.items() for name, tensor in zip(names(path), each, strict=True)
    }


def is_projection(path: str) -> bool:
    return ".attn" in path or "self_attn" in path


@pytest.mark.parametrize("names", UNET)
def test_layers_of_a_unet_have_many_names(names: str, cats: Networks) -> None:
    layers = factors(cats.unet, 4, 0, is_projection)
    lora = read(named(layers, UNET[names]), cats)
    same(lora.unet, layers)
    assert not (lora.text_encoder or lora.text_encoder_2 or lora.unused)


@pytest.mark.parametrize("names", TEXT)
def test_so_have_layers_of_a_text_encoder(names: str, cats: Networks) -> None:
    layers = factors(cats.text_encoder, 4, 0, is_projection)
    lora = read(named(layers, TEXT[names]), cats)
    same(lora.text_encoder, layers)
    assert not (lora.unet or lora.text_encoder_2 or lora.unused)


def test_sdxl_has_two_text_encoders() -> None:
    unet, first, other = tiny_sdxl()
    layers = [factors(network, 4, seed) for seed, network in enumerate((unet, first, other))]
    layers[2] |= factors(other, 4, 3, "text_projection".__eq__)
    for prefixes in (
        ("lora_unet_", "lora_te1_text_model_", "lora_te2_"),
        ("unet.", "text_encoder.", "text_encoder_2."),
    ):
        tensors = {}
        for each, prefix in zip(layers, prefixes, strict=True):
            names = dotted("lora_A.weight", "lora_B.weight", prefix)
            tensors |= kohya(each, prefix) if prefix.endswith("_") else named(each, names)
        lora = read_lora(tensors, unet, first, other)
        for deltas, each in zip((lora.unet, lora.text_encoder, lora.text_encoder_2), layers, strict=True):
            same(deltas, each)
        assert not lora.unused


KNOWN = {
    "input_blocks_0_0": "conv_in",
    "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks_4_0_skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
    "input_blocks_4_1_transformer_blocks_1_attn2_to_k":
        "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
    "input_blocks_8_1_proj_out": "down_blocks.2.attentions.1.proj_out",
    "middle_block_1_transformer_blocks_0_ff_net_0_proj":
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "middle_block_2_in_layers_2": "mid_block.resnets.1.conv1",
    "output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks_5_0_emb_layers_1": "up_blocks.1.resnets.2.time_emb_proj",
    "output_blocks_8_0_out_layers_3": "up_blocks.2.resnets.2.conv2",
    "label_emb_0_2": "add_embedding.linear_2",
    "time_embed_0": "time_embedding.linear_1",
    "out_2": "conv_out",
}  # fmt: skip
"""Some layers of SDXL, as kohya's trainers and as diffusers call them."""


def original_names(unet: UNet2DConditionModel) -> dict[str, str]:
    """Of each layer, by its path, the name that is not diffusers' own."""
    paths = [path for path, _ in weighted(unet)]
    own = {path.replace(".", "_") for path in paths}
    names = {path: name for name, path in names_of(unet, paths).items() if name not in own}
    assert names.keys() == set(paths)
    return names


def test_names_of_the_original_layout_are_those_that_diffusers_knows() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            **SDXL, block_out_channels=(320, 640, 1280), transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048, attention_head_dim=(5, 10, 20), addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
    names = original_names(unet)
    assert {name: path for path, name in names.items() if name in KNOWN} == KNOWN
    for path, name in names.items():
        tensors = {f"lora_unet_{name}.lora_{part}.weight": torch.zeros(1) for part in ("down", "up")}
        tensors = _maybe_map_sgm_blocks_to_diffusers(tensors, unet.config)
        for key in _convert_non_diffusers_lora_to_diffusers(tensors)[0]:
            assert key_of(key).layer == path


@pytest.mark.parametrize("of", ["SDXL", "SD"])
def test_layers_are_found_by_the_names_of_the_original_layout(of: str, cats: Networks) -> None:
    unet = tiny_sdxl()[0] if of == "SDXL" else cats.unet
    layers, names = factors(unet, 4, 0, lambda path: True), original_names(unet)
    tensors = kohya({names[path]: each for path, each in layers.items()}, "lora_unet_", alpha=2)
    same(read_lora(tensors, unet, cats.text_encoder).unet, layers, 0.5)


# scales


def test_alpha_is_a_tensor_or_else_the_rank(cats: Networks) -> None:
    layers = factors(cats.unet, 8, 0)
    for alpha, scale in ((None, 1), (8.0, 1), (2.0, 0.25), (0.0, 0)):
        same(read(kohya(layers, "lora_unet_", alpha), cats).unet, layers, scale)


PEFT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"lora_alpha": 2}, {}),
    ({"lora_alpha": 2, "use_rslora": True}, {}),
    ({"alpha_pattern": {"to_q": 3, "attn2.to_k": 5}, "rank_pattern": {"to_q": 2}}, {"lora_alpha": 7}),
]


@pytest.mark.parametrize(("settings", "text"), PEFT)
def test_peft_s_settings_are_those_of_its_own_files(
    settings: dict[str, Any], text: dict[str, Any], cats: Networks, tmp_path: Path
) -> None:
    """As diffusers' training scripts write them."""
    unet, encoder = copy.deepcopy(cats.unet), copy.deepcopy(cats.text_encoder)
    common = {"r": 4, "init_lora_weights": False}
    torch.manual_seed(0)
    unet.add_adapter(LoraConfig(**common, **settings, target_modules=["to_q", "to_k", "conv1", "proj_in"]))
    encoder.add_adapter(LoraConfig(**common, **text, target_modules=["q_proj", "fc1"]))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, get_peft_model_state_dict(unet), get_peft_model_state_dict(encoder),
        **_collate_lora_metadata({"unet": unet, "text_encoder": encoder}),
    )  # fmt: skip
    lora = read_file(tmp_path / "pytorch_lora_weights.safetensors", cats)
    assert not lora.unused
    for network, deltas in ((unet, lora.unet), (encoder, lora.text_encoder)):
        wanted = {
            path: module.get_delta_weight("default")
            for path, module in network.named_modules()
            if isinstance(module, LoraLayer)
        }
        assert wanted.keys() == deltas.keys()
        for path, delta in deltas.items():
            torch.testing.assert_close(delta.matrix(), wanted[path], rtol=1e-5, atol=1e-6)


def read_file(file: Path, networks: Networks) -> Lora:
    with safe_open(file, "pt") as opened:
        return read(load_file(file), networks, metadata=opened.metadata())


@pytest.mark.parametrize("kind", [LoHaConfig, LoKrConfig, LoraConfig])
def test_files_of_peft_alone(kind: Any, cats: Networks, tmp_path: Path) -> None:
    """They have their settings beside them."""
    torch.manual_seed(0)
    before = "lora_" if kind is LoraConfig else ""
    own = {f"{before}alpha": 6, f"init_{before}weights": False}
    config = kind(r=4, **own, target_modules=["to_q", "ff.net.2"])
    model = get_peft_model(copy.deepcopy(cats.unet), config)
    model.save_pretrained(tmp_path)
    settings = {"lora_adapter_metadata": (tmp_path / "adapter_config.json").read_text()}
    deltas = read(load_file(tmp_path / "adapter_model.safetensors"), cats, metadata=settings).unet
    for path, delta in deltas.items():
        wanted = model.base_model.model.get_submodule(path).get_delta_weight("default")
        torch.testing.assert_close(delta.matrix(), wanted, rtol=1e-5, atol=1e-6)
    assert len(deltas) == sum(isinstance(module, BaseTunerLayer) for module in model.modules())


@pytest.mark.parametrize(
    "settings", ["{", "[]", "3", '{"unet.lora_alpha": "much"}', '{"alpha_pattern": 3}', "[" * 100000]
)
def test_settings_that_are_none_are_a_mistake(settings: str, cats: Networks) -> None:
    tensors = kohya(factors(cats.unet, 4, 0), "lora_unet_")
    with pytest.raises(CellFailed) as error:
        read(tensors, cats, metadata={"lora_adapter_metadata": settings})
    assert str(error.value) == (
        "this LoRA cannot be applied to this checkpoint: "
        "its metadata, lora_adapter_metadata, is not what PEFT writes"
    )


@pytest.mark.parametrize("rank", [4, 128])
def test_a_small_alpha_is_exact_in_half_precision_too(rank: int, cats: Networks) -> None:
    """Times alpha / rank, a factor has only numbers whose bits fp16 leaves out."""
    layers = {path: (down, up * 0.01) for path, (down, up) in factors(cats.unet, rank, 0).items()}
    lora = read(kohya(layers, "lora_unet_", 0.5), cats).to(torch.device("cpu"), torch.float16)
    for path, each in layers.items():
        wanted, found = product(*each) * 0.5 / rank, lora.unet[path].matrix()
        assert (found - wanted).norm() < 5e-4 * wanted.norm()
