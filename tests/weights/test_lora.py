import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.training_utils import _collate_lora_metadata
from lycoris import create_lycoris
from lycoris.modules.full import FullModule
from lycoris.modules.norms import NormModule
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from farm.errors import CellFailed
from farm.weights.checkpoint import Networks
from farm.weights.layers import Layer, layers_of, names_of
from farm.weights.loading import load_checkpoint
from farm.weights.lora import Lora, read_lora
from farm.weights.lora_keys import key_of
from tests.weights.lora_files import SDXL, attends, factors, kohya, product, tiny_sdxl, tiny_unet, weighted

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
    "ComfyUI": dotted("lora_down.weight", "lora_up.weight", "text_encoders.clip_l.transformer.text_model."),
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


KNOWN_OF_SD = {
    "input_blocks_1_1_proj_in": "down_blocks.0.attentions.0.proj_in",
    "input_blocks_9_0_op": "down_blocks.2.downsamplers.0.conv",
    "middle_block_1_proj_out": "mid_block.attentions.0.proj_out",
    "output_blocks_2_1_conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
    "output_blocks_11_1_transformer_blocks_0_ff_net_2":
        "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.2",
}  # fmt: skip
"""Likewise of Stable Diffusion 1, where a block without attention makes pictures larger, too."""


def test_names_of_the_original_layout_of_stable_diffusion(sd1: Networks) -> None:
    names = original_names(sd1.unet)
    assert {name: path for path, name in names.items() if name in KNOWN_OF_SD} == KNOWN_OF_SD


@pytest.mark.parametrize("of", ["SDXL", "SD"])
def test_layers_are_found_by_the_names_of_the_original_layout(of: str, cats: Networks) -> None:
    unet = tiny_sdxl()[0] if of == "SDXL" else cats.unet
    layers, names = factors(unet, 4, 0, lambda path: True), original_names(unet)
    tensors = kohya({names[path]: each for path, each in layers.items()}, "lora_unet_", alpha=2)
    same(read_lora(tensors, unet, cats.text_encoder).unet, layers, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_kohya_s_files_for_sdxl_are_as_diffusers_reads_them(layout: str) -> None:
    unet, first, other = tiny_sdxl()
    names = original_names(unet)
    layers = factors(unet, 4, 0, lambda path: "embedding" not in path)
    tensors = kohya(
        {names[path]: each for path, each in layers.items()} if layout == "original" else layers,
        "lora_unet_",
        2,
    )
    tensors |= kohya(factors(first, 4, 1), "lora_te1_text_model_", 2) | kohya(
        factors(other, 4, 2), "lora_te2_", 3
    )
    lora = read_lora(tensors, unet, first, other)
    state, alphas = StableDiffusionXLPipeline.lora_state_dict(dict(tensors), unet_config=unet.config)
    copies = [copy.deepcopy(network) for network in (unet, first, other)]
    StableDiffusionXLPipeline.load_lora_into_unet(state, alphas, copies[0])
    for number, prefix in ((1, "text_encoder"), (2, "text_encoder_2")):
        StableDiffusionXLPipeline.load_lora_into_text_encoder(state, alphas, copies[number], prefix=prefix)
    for network, deltas in zip(copies, (lora.unet, lora.text_encoder, lora.text_encoder_2), strict=True):
        wanted = deltas_of_peft(network)
        assert wanted.keys() == deltas.keys()
        for path, delta in deltas.items():
            torch.testing.assert_close(delta.matrix(), wanted[path], rtol=1e-5, atol=1e-6)


def deltas_of_peft(network: nn.Module) -> dict[str, torch.Tensor]:
    """What it adds to the weights of a network that it has changed."""
    return {
        path: module.get_delta_weight(module.active_adapters[0])
        for path, module in network.named_modules()
        if isinstance(module, LoraLayer)
    }


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
        wanted = deltas_of_peft(network)
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


# kinds

LYCORIS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoCon": ("lora_up.weight", {}),
    "LoCon, in three": ("lora_mid.weight", {"use_tucker": True}),
    "LoCon, rsLoRA": ("lora_up.weight", {"rs_lora": True}),
    "LoCon with normalizations": ("w_norm", {"train_norm": True}),
    "LoHa": ("hada_w1_a", {"algo": "loha"}),
    "LoHa of a high rank": ("hada_w1_a", {"algo": "loha", "linear_dim": 6, "conv_dim": 6}),
    "LoHa, in three": ("hada_t1", {"algo": "loha", "use_tucker": True}),
    "LoKr": ("lokr_w2", {"algo": "lokr"}),
    "LoKr in two": ("lokr_w2_a", {"algo": "lokr", "factor": 2}),
    "LoKr, both in two": (
        "lokr_w1_a", {"algo": "lokr", "decompose_both": True, "linear_dim": 1, "conv_dim": 1, "factor": 4}
    ),
    "LoKr, in three": ("lokr_t2", {"algo": "lokr", "use_tucker": True, "conv_dim": 1, "factor": 2}),
    "LoKr, whole": ("lokr_w2", {"algo": "lokr", "full_matrix": True, "factor": 4}),
    "whole differences": ("diff_b", {"algo": "full"}),
}  # fmt: skip
"""A tensor that it has, and what LyCORIS is told to make."""


@pytest.mark.parametrize("kind", LYCORIS)
@torch.no_grad()
def test_networks_with_it_are_as_lycoris_computes_them(kind: str) -> None:
    unet = tiny_unet()
    part, settings = LYCORIS[kind]
    theirs, tensors = with_lycoris(copy.deepcopy(unet), settings)
    assert any(name.endswith(f".{part}") for name in tensors)
    lora = read_lora(tensors, unet, tiny_sdxl()[1])
    assert not lora.unused
    assert lora.unet.keys() >= {path for path, layer in layers_of(unet).items() if has(path, layer, kind)}
    plain, wanted = unet(**INPUTS).sample, theirs(**INPUTS).sample
    ours = merged(unet, lora)(**INPUTS).sample
    assert (wanted - plain).abs().max() > 0.05
    torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-5)


INPUTS: dict[str, Any] = {
    "sample": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
    "timestep": torch.tensor([900.0, 20.0]),
    "encoder_hidden_states": torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1)),
}


def with_lycoris(unet: UNet2DConditionModel, settings: dict[str, Any]) -> tuple[nn.Module, Tensors]:
    """A network that LyCORIS changes while it computes, and the tensors that it would save."""
    torch.manual_seed(1)
    ranks = {"linear_dim": 2, "linear_alpha": 1, "conv_dim": 2, "conv_alpha": 1}
    network = create_lycoris(unet, 1.0, **{"algo": "locon", **ranks, **settings})
    network.apply_to()
    for module in network.loras:
        for parameter in module.parameters():
            few = {NormModule: 0.1, FullModule: 0.05}.get(type(module), 0.3)
            parameter.add_(torch.randn_like(parameter) * few)
    return unet, {name: tensor.clone() for name, tensor in network.state_dict().items()}


def has(path: str, layer: Layer, kind: str) -> bool:
    return "attentions" in path and (len(layer.shape) > 1 or "normalizations" in kind)


def merged(network: nn.Module, lora: Lora) -> nn.Module:
    """A copy with everything added to its weights."""
    network = copy.deepcopy(network)
    for path, delta in lora.unet.items():
        layer = network.get_submodule(path)
        layer.weight.data += delta.matrix()
        if (bias := delta.bias()) is not None:
            layer.bias.data += bias
    return network


def test_products_of_1_x_1_may_be_written_as_matrices_and_the_other_way_around(cats: Networks) -> None:
    layers = factors(cats.unet, 4, 0)
    turned = {path: turned_around(down, up) for path, (down, up) in layers.items()}
    same(read(kohya(turned, "lora_unet_"), cats).unet, layers)


def turned_around(down: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if down.ndim == 2:
        return down[:, :, None, None], up[:, :, None, None]
    return down.flatten(1), up.flatten(1)


def test_what_it_adds_to_a_layer_s_output_is_that_of_its_weight(cats: Networks) -> None:
    torch.manual_seed(0)
    layers = factors(cats.unet, 4, 0, lambda path: True)
    for path, delta in read(kohya(layers, "lora_unet_"), cats).unet.items():
        layer = copy.deepcopy(cats.unet.get_submodule(path))
        is_linear = isinstance(layer, nn.Linear)
        x = torch.randn(2, 3, layer.in_features) if is_linear else torch.randn(2, layer.in_channels, 5, 6)
        before = layer(x)
        layer.weight.data += delta.matrix()
        torch.testing.assert_close(before + delta(x), layer(x), rtol=0, atol=1e-5)


def test_biases_may_go_with_any_kind_and_normalizations_be_whole_differences(cats: Networks) -> None:
    """As ComfyUI writes what it extracts from a checkpoint, in the original layout."""
    layers = factors(cats.unet, 4, 0, lambda path: path.endswith(("conv1", "to_out.0")))
    names, generator = original_names(cats.unet), torch.Generator().manual_seed(7)
    tensors, changed = {}, copy.deepcopy(cats.unet)
    for path, (down, up) in layers.items():
        key, layer = f"diffusion_model.{names[path]}", changed.get_submodule(path)
        bias = torch.randn(layer.bias.shape, generator=generator)
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.diff_b": bias}
        layer.weight.data += product(down, up)
        layer.bias.data += bias
    for name, path in (
        ("input_blocks.1.0.in_layers.0", "down_blocks.0.resnets.0.norm1"),
        ("out.0", "conv_norm_out"),
    ):
        norm = changed.get_submodule(path)
        for part, parameter in (("diff", norm.weight), ("diff_b", norm.bias)):
            tensors[f"diffusion_model.{name}.{part}"] = added = torch.randn(
                parameter.shape, generator=generator
            )
            parameter.data += added
    lora = read(tensors, cats)
    assert not lora.unused
    ours = merged(cats.unet, lora)
    for name, parameter in changed.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), parameter)
    x = torch.randn(2, 64, 4, 4)
    path = "down_blocks.0.resnets.0.conv1"
    found = cats.unet.get_submodule(path)(x) + lora.unet[path](x)
    torch.testing.assert_close(found, changed.get_submodule(path)(x), rtol=0, atol=1e-4)


def test_its_size_is_what_it_takes_in_its_type(cats: Networks) -> None:
    tensors = kohya(factors(cats.unet, 4, 0), "lora_unet_")
    numbers = sum(tensor.numel() for tensor in tensors.values())
    lora = read(tensors, cats)
    assert (lora.size, lora.to(torch.device("cpu"), torch.float16).size) == (4 * numbers, 2 * numbers)


# what does not fit


def refused(tensors: Tensors, networks: Networks, **others: Any) -> str:
    with pytest.raises(CellFailed) as error:
        read(tensors, networks, name="LoRA ink.safetensors", **others)
    before = "LoRA ink.safetensors cannot be applied to this checkpoint: "
    assert str(error.value).startswith(before) and "\n" not in str(error.value)
    return str(error.value).removeprefix(before)


@pytest.fixture(scope="module")
def sd1() -> Networks:
    return of_size(cross_attention_dim=768, attention_head_dim=8)


def of_size(hidden: int = 768, **config: Any) -> Networks:
    """Networks of Stable Diffusion's shapes, without numbers."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
        text = CLIPTextModel(CLIPTextConfig(hidden_size=hidden, num_hidden_layers=2))
    return Networks(unet, None, text, None, {})


WIDE = {"cross_attention_dim": 2048, "block_out_channels": (320, 640, 1280), **SDXL}
XL = {**WIDE, "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20),
      "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}  # fmt: skip


def file_for(networks: Networks, chosen: Callable[[str], bool] = attends) -> Tensors:
    layers = {
        path: (torch.zeros(1, *layer.shape[1:]), torch.zeros(layer.shape[0], 1, *[1] * len(layer.shape[2:])))
        for path, layer in layers_of(networks.unet).items()
        if chosen(path) and len(layer.shape) > 1
    }
    return kohya(layers, "lora_unet_")


def test_a_file_for_another_base_is_told_so(sd1: Networks) -> None:
    sd2 = of_size(
        1024, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
    )
    sdxl = of_size(**XL)
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k: down is "
    assert refused(file_for(sd2), sd1) == (
        f"{key}1 × 1024, where 1 × 768 fits; it seems to be for Stable Diffusion 2"
    )
    assert refused(file_for(sd1), sd2) == (
        f"{key}1 × 768, where 1 × 1024 fits; it seems to be for Stable Diffusion 1"
    )
    assert refused(file_for(sdxl), sd1).endswith(
        " of the 722 layers that it changes are not there, "
        "'down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_q' among them; it seems to be for SDXL"
    )
    assert refused(file_for(sd1), sdxl).endswith("; it seems to be for Stable Diffusion 1")
    names = original_names(sdxl.unet)
    original = {
        key.replace(path.replace(".", "_"), names[path]): tensor
        for key, tensor in file_for(sdxl).items()
        for path in [path_of(key, names)]
    }
    assert refused(original, sd1).endswith("; it seems to be for SDXL")
    assert len(read(original, sdxl).unet) == 722


def path_of(key: str, paths: Any) -> str:
    layer = key.removeprefix("lora_unet_").split(".")[0]
    return next(path for path in paths if path.replace(".", "_") == layer)


def test_tensors_of_a_second_text_encoder_are_of_sdxl(cats: Networks) -> None:
    _, _, other = tiny_sdxl()
    assert refused(kohya(factors(other, 4, 0), "lora_te2_"), cats).endswith("; it seems to be for SDXL")


@pytest.mark.parametrize(("width", "hint"), [(1024, "; it seems to be for Stable Diffusion 2"), (768, "")])
def test_files_for_text_encoders_alone_may_tell_too(width: int, hint: str, cats: Networks) -> None:
    layer = {"encoder.layers.0.self_attn.q_proj": (torch.zeros(4, width), torch.zeros(width, 4))}
    message = f"text_encoder.{next(iter(layer))}: down is 4 × {width}, where 4 × 128 fits{hint}"
    assert refused(kohya(layer, "lora_te_text_model_"), cats) == message


def test_other_kinds_of_models_are_named(cats: Networks) -> None:
    name = "lora_unet_double_blocks_0_img_attn_proj"
    tensors = {f"{name}.lora_down.weight": torch.zeros(4, 8), f"{name}.lora_up.weight": torch.zeros(8, 4)}
    assert refused(tensors, cats) == (
        "1 of the 1 layers that it changes are not there, 'double_blocks_0_img_attn_proj' among them; "
        "it seems to be for Flux"
    )


def test_a_few_layers_that_are_not_there_are_told(cats: Networks) -> None:
    tensors = kohya(factors(cats.unet, 4, 0), "lora_unet_", alpha=1)
    strange = kohya(
        {"down_blocks.7.attentions.0.proj_in": (torch.zeros(4, 4), torch.zeros(4, 4))}, "lora_unet_"
    )
    unknown = {"emb_params": torch.zeros(3), "lora_unet_conv_in.scale": torch.tensor(1.0)}
    lora = read(tensors | strange | unknown, cats)
    assert set(lora.unused) == strange.keys() | unknown.keys()
    assert lora.unet.keys() == factors(cats.unet, 4, 0).keys()


LAYER = "lora_unet_down_blocks_0_attentions_0_proj_in"
BROKEN: list[tuple[dict[str, tuple[int, ...]], str]] = [
    ({"lora_down.weight": (4, 64)}, "it lacks up"),
    ({"lora_up.weight": (64, 4)}, "it lacks down"),
    ({"lora_down.weight": (4, 64), "lora_up.weight": (64, 3)}, "up is 64 × 3, where 64 × 4 × 1 × 1 fits"),
    ({"lora_down.weight": (4, 64), "lora_up.weight": (32, 4)}, "up is 32 × 4, where 64 × 4 × 1 × 1 fits"),
    ({"lora_down.weight": (4, 64), "lora_up.weight": (4, 64)}, "up is 4 × 64, where 64 × 4 × 1 × 1 fits"),
    ({"lora_down.weight": (0, 64), "lora_up.weight": (64, 0)}, "down is 0 × 64"),
    ({"lora_down.weight": (), "lora_up.weight": (64, 4)}, "down is a number"),
    ({"lora_down.weight": (4, 64), "lora_up.weight": (256,)}, "up is 256"),
    ({"lora_down.weight": (4, 64), "lora_up.weight": (64, 4), "alpha": (2,)}, "alpha is more than a number"),
    ({"hada_w1_a": (64, 4), "hada_w1_b": (4, 64)}, "it lacks hada_w2_a"),
    ({"hada_w1_a": (64, 4), "hada_w1_b": (4, 64), "hada_w2_a": (64, 4), "hada_w2_b": (4, 63)},
     "hada_w2_b is 4 × 63, where 4 × 64 fits"),
    ({"hada_w1_a": (4, 64), "hada_w1_b": (4, 64), "hada_w2_a": (4, 64), "hada_w2_b": (4, 64),
      "hada_t1": (4, 4, 1, 1)}, "it lacks hada_t2"),
    ({"lokr_w1": (3, 8), "lokr_w2": (8, 8)}, "lokr_w1 is 3 × 8, which does not divide 64 × 64 × 1 × 1"),
    ({"lokr_w1": (8, 8), "lokr_w2": (8, 9)}, "lokr_w2 is 8 × 9, where 8 × 8 × 1 × 1 fits"),
    ({"lokr_w1_a": (8, 2), "lokr_w2": (8, 8)}, "it lacks lokr_w1_b"),
    ({"lokr_w1": (8, 8), "lokr_w2_a": (8, 2), "lokr_w2_b": (3, 8)},
     "lokr_w2_a is 8 × 2 and lokr_w2_b 3 × 8: there is no product"),
    ({"lokr_w1": (8, 8)}, "it lacks lokr_w2"),
    ({"diff": (64, 65)}, "diff is 64 × 65, where 64 × 64 × 1 × 1 fits"),
    ({"diff_b": (63,)}, "diff_b is 63, where 64 fits"),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_tensors_that_do_not_go_together(
    shapes: dict[str, tuple[int, ...]], message: str, cats: Networks
) -> None:
    tensors = {f"{LAYER}.{part}": torch.ones(shape) for part, shape in shapes.items()}
    assert refused(tensors, cats) == f"unet.down_blocks.0.attentions.0.proj_in: {message}"


def test_what_is_broken_is_not_said_to_be_for_another_base(cats: Networks) -> None:
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    assert refused({f"unet.{layer}.lora_A.weight": torch.ones(4, 768)}, cats) == f"unet.{layer}: it lacks up"


def test_products_are_not_for_normalizations(cats: Networks) -> None:
    tensors = kohya({"conv_norm_out": (torch.ones(4, 64), torch.ones(64, 4))}, "lora_unet_")
    assert refused(tensors, cats) == "unet.conv_norm_out: it is a normalization"


def test_parts_beside_those_that_are_used_are_told(cats: Networks) -> None:
    tensors = kohya(factors(cats.unet, 4, 0), "lora_unet_", alpha=4)
    lora = read(tensors | {f"{LAYER}.lokr_w1": torch.ones(2, 2)}, cats)
    assert lora.unused == (f"{LAYER}.lokr_w1",)
    same(lora.unet, factors(cats.unet, 4, 0))


def test_files_of_other_things_are_no_lora(cats: Networks) -> None:
    assert refused(cats.unet.state_dict(), cats) == "it has no tensors as a LoRA has"
    assert refused({}, cats) == "it has no tensors as a LoRA has"


def test_two_tensors_for_one_thing_are_a_mistake(cats: Networks) -> None:
    layers = factors(cats.unet, 4, 0)
    both = kohya(layers, "lora_unet_") | named(layers, UNET["diffusers"])
    assert "says again what" in refused(both, cats)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("a DoRA", {"dora_wd": True}), ("an OFT", {"algo": "diag-oft"}), ("an OFT", {"algo": "boft"}),
     ("an IA3", {"algo": "ia3"}), ("a GLoRA", {"algo": "glora"})],
)  # fmt: skip
@torch.no_grad()
def test_what_is_no_sum_is_refused(kind: str, settings: dict[str, Any], cats: Networks) -> None:
    _, tensors = with_lycoris(copy.deepcopy(cats.unet), settings)
    assert refused(tensors, cats) == f"it is {kind}, which is not supported"


def test_so_is_peft_s_dora(cats: Networks) -> None:
    config = LoraConfig(r=4, use_dora=True, target_modules=["to_q"])
    tensors = get_peft_model_state_dict(get_peft_model(copy.deepcopy(cats.unet), config))
    assert refused(tensors, cats) == "it is a DoRA, which is not supported"
