import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from lycoris import create_lycoris
from safetensors.torch import save_file
from torch import nn

from farm.render.adapters import adapted
from farm.render.deepcache import shallow_output, with_features
from farm.render.token_merging import tokens_merged
from farm.render.tuning import faster
from farm.weights.checkpoint import Networks
from farm.weights.deltas import Delta, Full
from farm.weights.layers import layers_of
from farm.weights.loading import load_checkpoint
from farm.weights.lora import Lora, read_lora
from tests.weights.lora_files import factors, kohya

pytestmark = pytest.mark.slow  # there are many of them, on networks of several kinds

CPU = torch.device("cpu")
Deltas = Mapping[str, Delta]


def tensors_of(networks: Networks, seed: int, rank: int = 4) -> dict[str, torch.Tensor]:
    """A file for UNet and text encoder, as kohya's trainers write it."""
    text = kohya(factors(networks.text_encoder, rank, seed), "lora_te_text_model_", alpha=rank / 2)
    return kohya(factors(networks.unet, rank, seed), "lora_unet_", alpha=rank / 2) | text


@pytest.fixture(scope="module")
def loras(networks: Networks) -> list[Lora]:
    """Two of them."""
    files = (tensors_of(networks, seed, rank) for seed, rank in ((0, 4), (1, 3)))
    return [read_lora(tensors, networks.unet, networks.text_encoder) for tensors in files]


def inputs(rows: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    latents, states = (
        torch.randn(rows, 4, 8, 8, generator=generator),
        torch.randn(rows, 77, 128, generator=generator),
    )
    return latents.to(dtype), torch.linspace(900, 20, rows), states.to(dtype)


@torch.inference_mode()
def answer(
    unet: nn.Module, given: tuple[torch.Tensor, ...], *additions: tuple[Deltas, list[float]]
) -> torch.Tensor:
    scaled = [(deltas, torch.tensor(scales)) for deltas, scales in additions]
    with adapted(layers_of(unet), scaled) if scaled else nullcontext():
        output: torch.Tensor = unet(*given, return_dict=False)[0]
    return output


# against diffusers

Weights = dict[str, float]

WEIGHTS: dict[str, list[Weights]] = {
    "at 1": [{"unet": 1, "text_encoder": 1}],
    "apart": [{"unet": 0.6, "text_encoder": -0.5}],
    "two": [{"unet": 0.5, "text_encoder": 1.5}, {"unet": -0.8, "text_encoder": 0.7}],
    "two, crosswise": [{"unet": 0, "text_encoder": 1}, {"unet": 1.3, "text_encoder": 0}],
}
"""Of each LoRA, for the networks."""


def load(tiny_model: Path, dtype: torch.dtype) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, dtype=dtype, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(pipeline: StableDiffusionPipeline) -> np.ndarray:
    picture: np.ndarray = pipeline(
        "a ginger cat", negative_prompt="blurry", num_inference_steps=4, guidance_scale=4,
        height=64, width=64, generator=torch.Generator().manual_seed(5), output_type="np",
    ).images[0]  # fmt: skip
    return picture * 255


class Both(NamedTuple):
    """A pipeline with two LoRA as diffusers loads them, one without, and them."""

    theirs: StableDiffusionPipeline
    ours: StableDiffusionPipeline
    loras: list[Lora]


def both(tiny_model: Path, tmp_path: Path, dtype: torch.dtype) -> Both:
    theirs, ours = load(tiny_model, dtype), load(tiny_model, dtype)
    loras = []
    for number in (0, 1):
        tensors = tensors_of(ours, number, 4 - number)
        save_file(tensors, tmp_path / f"{number}.safetensors")
        theirs.load_lora_weights(tmp_path, weight_name=f"{number}.safetensors", adapter_name=str(number))
        loras.append(read_lora(tensors, ours.unet, ours.text_encoder).to(CPU, dtype))
    return Both(theirs, ours, loras)


@pytest.mark.slow
@pytest.mark.parity
def test_pictures_are_those_of_diffusers(tiny_model: Path, tmp_path: Path) -> None:
    theirs, ours, loras = both(tiny_model, tmp_path, torch.float32)
    plain = picture(ours)
    for weights in WEIGHTS.values():
        theirs.set_adapters([str(number) for number in range(len(weights))], weights)
        wanted = picture(theirs)
        with both_adapted(ours, loras, weights):
            found = picture(ours)
        assert np.abs(wanted - plain).max() > 30
        assert np.abs(found - wanted).max() <= 2
    assert np.array_equal(picture(ours), plain)


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.inference_mode()
def test_half_precision_is_as_exact_as_diffusers(
    dtype: torch.dtype, tiny_model: Path, tmp_path: Path
) -> None:
    """Pictures cannot be compared: rounding alone changes those of the bare checkpoint by 2 or 14 of 255."""
    theirs, ours, loras = both(tiny_model, tmp_path, dtype)
    exact, _, _ = both(tiny_model, tmp_path, torch.float32)
    for weights in WEIGHTS.values():
        for pipeline in (theirs, exact):
            pipeline.set_adapters([str(number) for number in range(len(weights))], weights)
        wanted, rounded = answers(exact), answers(theirs)
        with both_adapted(ours, loras, weights):
            found = answers(ours)
        for name, truth in wanted.items():
            assert (found[name] - truth).norm() < 1.1 * (rounded[name] - truth).norm()


def answers(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """Of the networks to something."""
    given = inputs(2, pipeline.dtype)
    tokens = torch.arange(77)[None] + 300
    return {
        "unet": pipeline.unet(*given, return_dict=False)[0].float(),
        "text_encoder": pipeline.text_encoder(tokens).last_hidden_state.float(),
    }


@contextmanager
def both_adapted(pipeline: Any, loras: list[Lora], weights: list[Weights]) -> Iterator[None]:
    """While diffusers calls the UNet with two rows, and the text encoder with one."""
    with ExitStack() as stack:
        for name, rows in (("unet", 2), ("text_encoder", 1)):
            additions = [
                (getattr(lora, name), torch.full((rows,), float(each[name])))
                for lora, each in zip(loras, weights)
            ]
            stack.enter_context(adapted(layers_of(getattr(pipeline, name)), additions))
        yield


# rows


def test_each_row_is_as_it_is_alone_and_as_with_changed_weights(
    networks: Networks, loras: list[Lora]
) -> None:
    scales, others = [0.0, 1.0, -0.7, 0.3], [0.0, 0.0, 0.5, 1.2]
    given = inputs(4)
    found = answer(networks.unet, given, (loras[0].unet, scales), (loras[1].unet, others))
    for row, pair in enumerate(zip(scales, others)):
        alone = tuple(tensor[row : row + 1] for tensor in given)
        additions = [(lora.unet, [scale]) for lora, scale in zip(loras, pair)]
        wanted = answer(
            changed(networks.unet, *((lora.unet, scale) for lora, scale in zip(loras, pair))), alone
        )
        torch.testing.assert_close(answer(networks.unet, alone, *additions), wanted, rtol=0, atol=2e-5)
        torch.testing.assert_close(found[row : row + 1], wanted, rtol=0, atol=2e-5)


def changed(network: nn.Module, *additions: tuple[Deltas, float]) -> nn.Module:
    """A copy whose weights have them added."""
    network = copy.deepcopy(network)
    for deltas, scale in additions:
        for path, delta in deltas.items():
            layer = network.get_submodule(path)
            layer.weight.data += scale * delta.matrix()
            if (bias := delta.bias()) is not None:
                layer.bias.data += scale * bias
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_of_no_adapter_are_the_same_bits(
    dtype: torch.dtype, tiny_model: Path, loras: list[Lora]
) -> None:
    unet = load_checkpoint(tiny_model, CPU, dtype).unet
    given = inputs(4, dtype)
    deltas = loras[0].to(CPU, dtype).unet
    plain = answer(unet, given)
    found = answer(unet, given, (deltas, [0, 0.8, 0, 1]))
    assert torch.equal(found[::2], plain[::2])
    assert ((found - plain)[1::2].abs().amax((1, 2, 3)) > 0.05).all()
    assert torch.equal(answer(unet, given), plain)  # and nothing stays behind


LYCORIS: dict[str, dict[str, Any]] = {
    "LoCon": {"algo": "locon"},
    "LoCon, in three": {"algo": "locon", "use_tucker": True},
    "LoHa": {"algo": "loha"},
    "LoKr": {"algo": "lokr", "factor": 4},
    "whole differences": {"algo": "full"},
    "normalizations": {"algo": "locon", "train_norm": True},
}


@pytest.mark.parametrize("kind", LYCORIS)
@torch.no_grad()
def test_kinds_of_lycoris(kind: str, networks: Networks) -> None:
    torch.manual_seed(1)
    theirs = copy.deepcopy(networks.unet)
    network = create_lycoris(theirs, 1.0, linear_dim=2, linear_alpha=1, **LYCORIS[kind])
    network.apply_to()
    for parameter in (parameter for module in network.loras for parameter in module.parameters()):
        parameter.add_(torch.randn_like(parameter) * (0.02 if kind == "whole differences" else 0.1))
    lora = read_lora(dict(network.state_dict()), networks.unet, networks.text_encoder)
    given = inputs(3)
    plain, wanted = answer(networks.unet, given), answer(theirs, given)
    found = answer(networks.unet, given, (lora.unet, [1, 0, 0.5]))
    half = answer(changed(networks.unet, (lora.unet, 0.5)), given)
    assert ((wanted - plain).abs().amax((1, 2, 3)) > 0.02).all()
    for row, each in enumerate((wanted, plain, half)):
        torch.testing.assert_close(found[row], each[row], rtol=0, atol=5e-5)


# with everything else that changes a UNet


@torch.inference_mode()
def test_fused_projections_merged_tokens_and_features_used_again(
    networks: Networks, loras: list[Lora]
) -> None:
    fused = faster(replace(networks, unet=copy.deepcopy(networks.unet), vae=copy.deepcopy(networks.vae))).unet
    assert not any(path.endswith("to_v") for path, _ in fused.named_modules())
    given = inputs(2)
    weighted = [(lora.unet, scale) for lora, scale in zip(loras, (0.9, -0.4))]

    def passes(unet: nn.Module) -> list[torch.Tensor]:
        with tokens_merged(unet, 0.5, given[0]):
            output, features = with_features(unet, 1, *given)
            return [output, shallow_output(unet, 1, *given, torch.stack(features))]

    wanted = passes(changed(networks.unet, *weighted))
    plain = passes(networks.unet)
    for unet in (networks.unet, fused):
        with adapted(layers_of(unet), [(deltas, torch.full((2,), scale)) for deltas, scale in weighted]):
            found = passes(unet)
        for each, target, before in zip(found, wanted, plain):
            torch.testing.assert_close(each, target, rtol=0, atol=5e-5)
            assert (target - before).abs().max() > 0.05


def test_a_fused_network_s_layers_are_found_when_files_are_read(
    networks: Networks, loras: list[Lora]
) -> None:
    fused = faster(replace(networks, unet=copy.deepcopy(networks.unet), vae=copy.deepcopy(networks.vae))).unet
    lora = read_lora(tensors_of(networks, 0), fused, networks.text_encoder)
    assert lora.unet.keys() == loras[0].unet.keys() and not lora.unused


def test_rows_of_the_text_encoder(networks: Networks, loras: list[Lora]) -> None:
    encoder = networks.text_encoder
    tokens = torch.arange(154).reshape(2, 77) + 300
    with (
        torch.inference_mode(),
        adapted(layers_of(encoder), [(loras[0].text_encoder, torch.tensor([0.0, 0.7]))]),
    ):
        found = encoder(tokens).last_hidden_state
    with torch.inference_mode():
        plain = encoder(tokens).last_hidden_state
        wanted = changed(encoder, (loras[0].text_encoder, 0.7))(tokens).last_hidden_state
    assert torch.equal(found[0], plain[0])
    assert (wanted[1] - plain[1]).abs().max() > 0.05
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=2e-5)


class Told(Full):
    """Of nothing, and says what it was told."""

    def add_to(self, output: torch.Tensor, x: torch.Tensor, scales: torch.Tensor) -> None:
        assert scales.shape == (len(output), *[1] * (output.ndim - 1))
        assert scales.dtype == output.dtype == torch.bfloat16


def test_scales_come_in_the_type_of_the_layers(networks: Networks) -> None:
    unet = copy.deepcopy(networks.unet).to(torch.bfloat16)
    layers = layers_of(unet)
    deltas = {path: Told(None, None, layer.shape) for path, layer in layers.items()}
    with torch.inference_mode(), adapted(layers, [(deltas, torch.ones(2))]):
        unet(*inputs(2, torch.bfloat16), return_dict=False)


def test_nothing_waits_for_the_device(networks: Networks, loras: list[Lora]) -> None:
    """On `meta` there are no numbers that it could wait for."""
    meta = torch.device("meta")
    unet = copy.deepcopy(networks.unet).to(meta, torch.float16)
    deltas = loras[0].to(meta, torch.float16).unet
    given = [tensor.to(meta) for tensor in inputs(2, torch.float16)]
    with torch.inference_mode(), adapted(layers_of(unet), [(deltas, torch.ones(2, device=meta))]):
        assert unet(*given, return_dict=False)[0].shape == (2, 4, 8, 8)


def test_it_leaves_no_trace_also_after_a_mistake(networks: Networks, loras: list[Lora]) -> None:
    given = inputs(2)
    plain, before = answer(networks.unet, given), state(networks.unet)
    with pytest.raises(RuntimeError), adapted(layers_of(networks.unet), [(loras[0].unet, torch.ones(2))]):
        assert state(networks.unet) != before
        networks.unet(*inputs(2)[:2], torch.zeros(2, 77, 5), return_dict=False)
    assert state(networks.unet) == before
    assert torch.equal(answer(networks.unet, given), plain)


def state(network: nn.Module) -> list[Any]:
    """Of all modules, what hangs on them."""
    return [
        (path, len(module._forward_hooks), len(module._forward_pre_hooks), sorted(vars(module)))
        for path, module in network.named_modules()
    ]


def test_a_mistake_at_the_beginning_leaves_no_trace_either(networks: Networks, loras: list[Lora]) -> None:
    before = state(networks.unet)
    with (
        pytest.raises(KeyError),
        adapted(
            layers_of(networks.unet), [(loras[0].unet, torch.ones(2)), ({"nowhere": None}, torch.ones(2))]
        ),
    ):
        pass
    assert state(networks.unet) == before
