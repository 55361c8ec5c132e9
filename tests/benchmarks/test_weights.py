from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.checkpoint_file import SIZES, tensors, write_checkpoint
from benchmarks.weights import SIDES, TYPES, by_diffusers, by_farm, made, report


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize("precision", TYPES)
def test_both_sides_load_the_same_networks(precision: str, tmp_path: Path) -> None:
    files = made(tmp_path, "tiny")
    ours, theirs = by_farm(files, precision), by_diffusers(files, precision)
    for part in ("unet", "vae", "text_encoder"):
        assert same(getattr(ours, part), getattr(theirs, part)), part
    assert ours.unet.dtype == TYPES[precision]


@pytest.mark.slow
def test_its_figures_hang_together() -> None:
    found = report("tiny", 1, lambda act, *arguments: act(*arguments))
    assert found["loading"].keys() == SIDES.keys()
    read = found["loading"]["plain read"]["processor_seconds"]
    for side in found["loading"].values():
        assert side["times_a_plain_read"] == pytest.approx(side["processor_seconds"] / read, rel=0.1)
    assert set(found["diffusers_over_farm"]) == set(TYPES)
    changes, switches = found["milliseconds_to_change"], found["milliseconds_to_switch"]
    assert changes["a LoRA, another weight"] < changes["a LoRA, read"]
    assert switches["back to one of two"] < switches["the first"]


def test_the_file_is_as_large_as_that_of_stable_diffusion(tmp_path: Path) -> None:
    parameters = 859_520_964 + 83_653_863 + 123_060_480  # of UNet, VAE and text encoder, as published
    assert sum(torch.Size(shape).numel() for _, shape in tensors(SIZES["sd15"])) == parameters
    write_checkpoint(path := tmp_path / "tiny.safetensors", SIZES["tiny"])
    assert {name: tuple(one.shape) for name, one in load_file(path).items()} == dict(tensors(SIZES["tiny"]))
