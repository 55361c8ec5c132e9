"""Merges against the plain formula."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from farm.errors import CellFailed, FarmError
from farm.merges import Merge
from farm.weights.baking import LoraUse
from farm.weights.configs import check_checkpoint
from farm.weights.contents import BadFile
from farm.weights.loading import load_checkpoint
from farm.weights.merge_file import write_merge
from farm.weights.merging import Merging
from tests.weights.lora_files import factors, kohya, product
from tests.weights.original_files import Tiny, original, original_vae, tiny, write

pytestmark = pytest.mark.slow  # there are many of them, on networks of several kinds

CPU = torch.device("cpu")
SUM, DIFFERENCE = "weighted sum", "add difference"
FIRST_CONV = "model.diffusion_model.input_blocks.0.0.weight"
POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"
State = dict[str, torch.Tensor]


def changed(state: State, seed: int) -> State:
    """Other weights of the same networks."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in state.items()
    }


@pytest.fixture(scope="module")
def states(sd1: Tiny) -> dict[str, State]:
    first = original(sd1)
    return {"a": first, "b": changed(first, 1), "c": changed(first, 2)}


@pytest.fixture(scope="module")
def files(states: dict[str, State], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    for name, state in states.items():
        save_file(state, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in states}


def saved(state: State, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def merged(*paths: Path, method: str = SUM, weight: float = 0.3) -> State:
    made = Merging(Merge(paths, method, weight))
    return {name: made.tensor(name) for name in made}


def test_a_weighted_sum(states: dict[str, State], files: dict[str, Path]) -> None:
    found = merged(files["a"], files["b"])
    assert found.keys() == states["a"].keys()
    for name, tensor in found.items():
        a, b = states["a"][name], states["b"][name]
        wanted = 0.7 * a + 0.3 * b if a.is_floating_point() else a
        torch.testing.assert_close(tensor, wanted)


def test_an_added_difference(states: dict[str, State], files: dict[str, Path]) -> None:
    found = merged(*files.values(), method=DIFFERENCE, weight=0.5)
    for name, tensor in found.items():
        a, b, c = (states[part][name] for part in "abc")
        torch.testing.assert_close(tensor, a + 0.5 * (b - c) if a.is_floating_point() else a)


def test_the_ends_are_the_parts_themselves(states: dict[str, State], files: dict[str, Path]) -> None:
    for weight, part in ((0, "a"), (1, "b")):
        found = merged(files["a"], files["b"], weight=weight)
        assert all(torch.equal(tensor, states[part][name]) for name, tensor in found.items())


def test_what_one_of_them_lacks_stays_as_in_the_first(
    states: dict[str, State], files: dict[str, Path], tmp_path: Path
) -> None:
    name = "model.diffusion_model.time_embed.0.bias"
    less = saved({key: tensor for key, tensor in states["b"].items() if key != name}, tmp_path / "less")
    assert torch.equal(merged(files["a"], less)[name], states["a"][name])
    for parts in ((less, files["c"]), (files["c"], less)):
        assert torch.equal(merged(files["a"], *parts, method=DIFFERENCE)[name], states["a"][name])
    assert name not in merged(less, files["a"])


def test_positions_markers_and_averages_are_not_merged(
    states: dict[str, State], files: dict[str, Path], tmp_path: Path
) -> None:
    odd = {POSITIONS: torch.arange(77.0)[None], "v_pred": torch.ones(1), "model_ema.decay": torch.ones(1)}
    other = {POSITIONS: torch.zeros(1, 77), "v_pred": torch.zeros(1), "model_ema.decay": torch.zeros(1)}
    found = merged(saved(states["a"] | odd, tmp_path / "a"), saved(states["b"] | other, tmp_path / "b"))
    assert torch.equal(found[POSITIONS], odd[POSITIONS]) and torch.equal(found["v_pred"], torch.ones(1))
    assert "model_ema.decay" not in found


def test_a_text_encoder_with_the_names_of_the_first_files_is_found(
    states: dict[str, State], files: dict[str, Path], tmp_path: Path
) -> None:
    early = {
        name.replace("transformer.text_model.", "transformer."): one for name, one in states["b"].items()
    }
    path = saved(early, tmp_path / "early")
    found, other = merged(files["a"], path), merged(path, files["a"], weight=0.7)
    for name, tensor in merged(files["a"], files["b"]).items():
        assert torch.equal(found[name], tensor)
        torch.testing.assert_close(other[name.replace("transformer.text_model.", "transformer.")], tensor)


def test_of_an_inpainting_checkpoint_the_latents_channels_are_merged(
    states: dict[str, State], files: dict[str, Path], tmp_path: Path
) -> None:
    paints = original(tiny("sd1", in_channels=9))
    path = saved(paints, tmp_path / "paints")
    merge = Merge((path, files["b"], files["c"]), DIFFERENCE, 1)
    check_checkpoint(merge)
    found = merged(*merge.parts, method=DIFFERENCE, weight=1)[FIRST_CONV]
    b, c = states["b"][FIRST_CONV], states["c"][FIRST_CONV]
    torch.testing.assert_close(found[:, :4], paints[FIRST_CONV][:, :4] + b - c)
    assert torch.equal(found[:, 4:], paints[FIRST_CONV][:, 4:])
    assert load_checkpoint(merge, CPU, torch.float32).unet.config.in_channels == 9
    pix2pix = dict(states["a"]) | {FIRST_CONV: torch.cat([states["a"][FIRST_CONV]] * 2, dim=1)}
    eight = merged(saved(pix2pix, tmp_path / "pix2pix"), files["b"])[FIRST_CONV]
    torch.testing.assert_close(eight[:, :4], 0.7 * states["a"][FIRST_CONV] + 0.3 * b)
    assert torch.equal(eight[:, 4:], states["a"][FIRST_CONV])


def refusals(files: dict[str, Path], folder: Path) -> list[tuple[tuple[Path, ...], str]]:
    other = tiny("sd1")
    paints, xl = (
        write(tiny("sd1", 9), folder / "p.safetensors"),
        write(tiny("sdxl"), folder / "x.safetensors"),
    )
    wide = dict(original(other))
    for name in [name for name in wide if "middle_block.1" in name and "attn2.to_k" in name]:
        del wide[name]
    (folder / "folder").mkdir()
    broken = saved(wide, folder / "broken")
    a = files["a"]
    return [
        ((a, xl), rf"^{xl}: it is sdxl, and a\.safetensors is sd1; only checkpoints of one family"),
        ((a, paints), f"^{paints}: it is for inpainting, and must come first"),
        ((paints, a, paints), f"^{paints}: only one of it and a.safetensors is for inpainting"),
        ((a, folder / "folder"), f"^{folder / 'folder'}: it is a folder of diffusers"),
        ((a, broken), f"^{broken}: it has no tensor"),
    ]


def test_what_cannot_be_merged_is_told_from_headers(files: dict[str, Path], tmp_path: Path) -> None:
    for parts, what in refusals(files, tmp_path):
        method = SUM if len(parts) == 2 else DIFFERENCE
        with pytest.raises(FarmError, match=what) as mistake:
            check_checkpoint(Merge(parts, method, 0.3))
        assert "\n" not in str(mistake.value)
        told = "it is not a file" if "folder of" in what else f"^checkpoint {what.removeprefix('^')}"
        with pytest.raises(CellFailed, match=told):
            load_checkpoint(Merge(parts, method, 0.3), CPU, torch.float32)


@pytest.mark.parametrize("what", ["UNet", "VAE", "text encoder"])
def test_networks_that_are_built_otherwise_are_refused(
    what: str, sd1: Tiny, files: dict[str, Path], tmp_path: Path
) -> None:
    text = sd1.text_encoders[0].config
    others: dict[str, dict[str, Any]] = {
        "UNet": {
            "unet": UNet2DConditionModel.from_config({**sd1.unet.config, "block_out_channels": (32, 96)})
        },
        "VAE": {"vae": AutoencoderKL.from_config({**sd1.vae.config, "block_out_channels": (32, 32, 64, 96)})},
        "text encoder": {
            "text_encoders": (CLIPTextModel(CLIPTextConfig(**{**text.to_dict(), "num_hidden_layers": 2})),)
        },
    }
    path = write(replace(sd1, **others[what]), tmp_path / "other.safetensors")
    with pytest.raises(BadFile, match=f"^{path}: its {what} is built otherwise than that of a.safetensors"):
        check_checkpoint(Merge((files["a"], path), SUM, 0.3))


def test_tensors_of_other_shapes_are_refused(
    states: dict[str, State], files: dict[str, Path], tmp_path: Path
) -> None:
    name = "model.diffusion_model.time_embed.0.bias"
    path = saved(states["b"] | {name: torch.zeros(3)}, tmp_path / "b")
    with pytest.raises(BadFile, match=rf"^{path}: its tensor {name} has the shape \[3\], not \[128\] in a"):
        Merging(Merge((files["a"], path), SUM, 0.3))


def written(target: Path, *parts: Path, precision: str = "fp32", **more: Any) -> Path:
    method = {1: "no interpolation", 2: SUM, 3: DIFFERENCE}[len(parts)]
    write_merge(Merge(parts, method, 0.3), target, precision, {"format": "pt"}, **more)
    return target


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("fp32", torch.float32)])
def test_a_file_has_the_same_tensors(
    precision: str, dtype: torch.dtype, files: dict[str, Path], tmp_path: Path
) -> None:
    path = written(tmp_path / "m.safetensors", files["a"], files["b"], precision=precision)
    found, wanted = load_file(path), merged(files["a"], files["b"])
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        kept = tensor.to(dtype) if tensor.is_floating_point() else tensor
        assert found[name].dtype == kept.dtype and torch.equal(found[name], kept)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]


def test_pickles_can_be_merged(sd1: Tiny, files: dict[str, Path], tmp_path: Path) -> None:
    path = write(sd1, tmp_path / "a.ckpt")
    found = merged(path, files["b"])
    assert all(torch.equal(tensor, found[name]) for name, tensor in merged(files["a"], files["b"]).items())


def test_nothing_is_overwritten_or_left_half(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"mine")
    with pytest.raises(FarmError, match="is there already"):
        written(there, files["a"], files["b"])
    assert there.read_bytes() == b"mine"
    with pytest.raises(FarmError, match=r"nowhere.m\.safetensors: it cannot be written: FileNotFoundError"):
        written(tmp_path / "nowhere" / "m.safetensors", files["a"], files["b"])

    def stop(done: int, whole: int) -> None:
        if done > whole / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "m.safetensors", files["a"], files["b"], progress=stop)
    assert [entry.name for entry in tmp_path.iterdir()] == ["there.safetensors"]


def test_a_vae_takes_the_place_of_the_own_one(files: dict[str, Path], tmp_path: Path) -> None:
    vae = original_vae(tiny("sdxl").vae)
    alone = saved(vae | {"loss.logvar": torch.ones(1)}, tmp_path / "vae.safetensors")
    path = written(tmp_path / "m.safetensors", files["a"], files["b"], vae=alone)
    found, own = load_file(path), merged(files["a"], files["b"])
    for name, tensor in found.items():
        inside = name.removeprefix("first_stage_model.")
        torch.testing.assert_close(tensor, vae[inside] if inside != name else own[name])
    assert found.keys() == own.keys()


def test_nothing_is_left_of_the_own_vae(
    states: dict[str, State], files: dict[str, Path], tmp_path: Path
) -> None:
    more = saved(states["a"] | {"first_stage_model.loss.logvar": torch.ones(1)}, tmp_path / "more")
    assert "first_stage_model.loss.logvar" not in load_file(written(tmp_path / "m", more, vae=files["c"]))


def test_a_lora_leaves_tensors_alone_that_share_memory(
    states: dict[str, State], sd1: Tiny, tmp_path: Path
) -> None:
    name = "model.diffusion_model.time_embed.0.bias"
    torch.save({"state_dict": states["a"] | {"model.same": states["a"][name]}}, tmp_path / "a.ckpt")
    tensors = {"lora_unet_time_embedding_linear_1.diff": torch.zeros(128, 32),
               "lora_unet_time_embedding_linear_1.diff_b": torch.ones(128)}  # fmt: skip
    lora = LoraUse(saved(tensors | MARK, tmp_path / "l"), 1, 1)
    found = load_file(written(tmp_path / "m", tmp_path / "a.ckpt", loras=[lora]))
    torch.testing.assert_close(found[name], states["a"][name] + 1)
    assert torch.equal(found["model.same"], states["a"][name])


def test_a_checkpoint_gives_its_vae(states: dict[str, State], files: dict[str, Path], tmp_path: Path) -> None:
    found = load_file(written(tmp_path / "m.safetensors", files["a"], vae=files["c"]))
    for name, tensor in found.items():
        part = "c" if name.startswith("first_stage_model.") else "a"
        assert torch.equal(tensor, states[part][name]), name


def test_a_vae_of_diffusers_gets_the_original_names(files: dict[str, Path], tmp_path: Path) -> None:
    vae = tiny("sdxl").vae
    vae.save_pretrained(tmp_path / "vae")
    inside = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    early = {name.replace(".to_q.", ".query."): tensor for name, tensor in load_file(inside).items()}
    for number, path in enumerate((tmp_path / "vae", inside, saved(early, tmp_path / "early.safetensors"))):
        found = load_file(written(tmp_path / f"{number}.safetensors", files["a"], vae=path))
        for name, tensor in original_vae(vae).items():
            assert torch.equal(found.pop(f"first_stage_model.{name}"), tensor)
        assert not [name for name in found if name.startswith("first_stage_model.")]


@pytest.mark.parametrize("widths", [(32, 32, 64, 96), (64, 64, 128, 128)])
def test_a_vae_that_is_built_otherwise_is_refused(
    widths: tuple[int, ...], files: dict[str, Path], tmp_path: Path
) -> None:
    wide = AutoencoderKL(
        block_out_channels=widths, layers_per_block=1, latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    )  # fmt: skip
    wide.save_pretrained(tmp_path / "vae")
    with pytest.raises(BadFile, match=f"^{tmp_path / 'vae'}: it is built otherwise than the VAE"):
        written(tmp_path / "m.safetensors", files["a"], vae=tmp_path / "vae")
    assert not (tmp_path / "m.safetensors").exists()


def lora_for(networks: Any, path: Path) -> tuple[Path, dict[str, dict[str, torch.Tensor]]]:
    """A file for all networks, of all their layers, and what it adds to each layer by its path."""
    parts: list[tuple[str, nn.Module, str]] = [("unet", networks.unet, "lora_unet_")]
    prefixes = ["lora_te_"] if networks.text_encoder_2 is None else ["lora_te1_", "lora_te2_"]
    for number, (encoder, prefix) in enumerate(zip(networks.text_encoders, prefixes)):
        parts.append((f"text{number}", encoder, f"{prefix}text_model_"))
    tensors: State = {}
    added: dict[str, dict[str, torch.Tensor]] = {}
    for seed, (part, network, prefix) in enumerate(parts):
        layers = factors(network, 2, seed, lambda path: "text_projection" not in path)
        layers = {layer.removeprefix("text_model."): each for layer, each in layers.items()}
        tensors |= kohya(layers, prefix, alpha=1.0)
        added[part] = {layer: product(*each) / 2 for layer, each in layers.items()}
        if hasattr(network, "text_projection"):
            layers = factors(network, 2, seed, lambda path: path == "text_projection")
            tensors |= kohya(layers, prefix.removesuffix("text_model_"), alpha=1.0)
            added[part] |= {layer: product(*each) / 2 for layer, each in layers.items()}
    save_file(tensors, path)
    return path, added


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_lora_is_baked_into_every_layer(family: str, tmp_path: Path) -> None:
    plain = write(tiny(family), tmp_path / "a.safetensors")
    before = load_checkpoint(plain, CPU, torch.float32)
    lora, added = lora_for(before, tmp_path / "lora.safetensors")
    path = written(tmp_path / "m.safetensors", plain, loras=[LoraUse(lora, 0.5, 0.8)])
    after = load_checkpoint(path, CPU, torch.float32)
    pairs = [("unet", before.unet, after.unet, 0.8)]
    for number, both in enumerate(zip(before.text_encoders, after.text_encoders)):
        pairs.append((f"text{number}", *both, 0.5))
    for part, one, other, weight in pairs:
        changes = added[part]
        theirs = dict(other.named_parameters())
        for name, tensor in one.named_parameters():
            layer, _, kind = name.removeprefix("text_model.").rpartition(".")
            wanted = tensor + weight * changes.pop(layer) if kind == "weight" and layer in changes else tensor
            torch.testing.assert_close(theirs[name], wanted, msg=lambda text, name=name: f"{name}: {text}")
        assert not changes


def test_loras_add_up_on_top_of_a_merge(files: dict[str, Path], tmp_path: Path) -> None:
    name = "model.diffusion_model.time_embed.0"
    tensors = {"lora_unet_time_embedding_linear_1.diff": torch.ones(128, 32),
               "lora_unet_time_embedding_linear_1.diff_b": torch.full((128,), 2.0)}  # fmt: skip
    lora = saved(tensors | MARK, tmp_path / "l.safetensors")
    uses = [LoraUse(lora, 1, 0.5), LoraUse(lora, 1, -0.25)]
    found = load_file(written(tmp_path / "m.safetensors", files["a"], files["b"], loras=uses))
    plain = merged(files["a"], files["b"])
    torch.testing.assert_close(found[f"{name}.weight"], plain[f"{name}.weight"] + 0.25)
    torch.testing.assert_close(found[f"{name}.bias"], plain[f"{name}.bias"] + 0.5)


MARK = {"lora_unet_conv_out.lora_down.weight": torch.zeros(1, 32, 3, 3),
        "lora_unet_conv_out.lora_up.weight": torch.zeros(4, 1, 1, 1)}  # fmt: skip
"""What makes a file of differences one of LoRA; adds nothing."""


def test_a_lora_for_another_family_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    xl = load_checkpoint(write(tiny("sdxl"), tmp_path / "x.safetensors"), CPU, torch.float32)
    lora, _ = lora_for(xl, tmp_path / "lora.safetensors")
    with pytest.raises(BadFile, match=f"^{lora} cannot be applied to this checkpoint"):
        written(tmp_path / "m.safetensors", files["a"], loras=[LoraUse(lora, 1, 1)])


PEAK = """
import sys, threading, time
from dataclasses import replace
from pathlib import Path
from farm.merges import Merge
from farm.weights.merge_file import write_merge

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024

before = highest = anonymous()
def watch():
    global highest
    while True:
        highest = max(highest, anonymous())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
a, b, target = map(Path, sys.argv[1:])
write_merge(Merge((a, b), "weighted sum", 0.5), target, "fp16", {})
print(highest - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="there is no /proc")
def test_memory_stays_below_one_checkpoint(sd1: Tiny, tmp_path: Path) -> None:
    state = original(sd1, torch.float16)
    blocks = {f"model.diffusion_model.more.{n}": torch.randn(1024, 2048).half() for n in range(50)}
    paths = [saved(state | blocks, tmp_path / f"{name}.safetensors") for name in "ab"]
    size = paths[0].stat().st_size
    answer = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, paths), str(tmp_path / "m.safetensors")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert size > 200e6 and int(answer.stdout) < size / 2, f"{int(answer.stdout) / size:.2f}"
