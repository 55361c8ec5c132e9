"""The engine's way over a card, without one: which devices meet, and where the host would have to wait."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from farm.cell import Cell, Settings
from farm.render.files import Files, LoraFile
from farm.render.renderer import Renderer
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from farm.weights.hypernetwork import read_hypernetwork
from tests.render.played_card import DEVICE, Card, Runtime, played
from tests.render.rendering import Counting, cat_file, render
from tests.render.test_on_mps import OTHER_NOISE_AND_PROMPTS, SCHEDULERS
from tests.render.unit_variance import settings
from tests.weights.lora_files import factors, kohya

pytestmark = pytest.mark.timeout(300)

PICTURE, FILE = cat_file()


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def halved(request: pytest.FixtureRequest, networks: Networks) -> Networks:
    """On the host, as a runner gets them; before there is a card. Of the fixture that a test names."""
    whole: Networks = request.getfixturevalue(getattr(request, "param", "networks"))
    parts = {
        name: copy.deepcopy(getattr(whole, name)).half().requires_grad_(False)
        for name in ("unet", "vae", "text_encoder", "text_encoder_2")
        if getattr(whole, name) is not None
    }
    return replace(whole, **parts)


@pytest.fixture
def card(halved: Networks, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    with played(monkeypatch, runtime) as mode:
        yield mode


def is_of_diffusers(where: str) -> bool:
    """Whether the last to call PyTorch was one of its schedulers."""
    files = [line for line in where.splitlines() if line.startswith("  File ")]
    callers = [line for line in files if "/torch/" not in line and "played_card.py" not in line]
    return "/diffusers/" in callers[-1]


def is_loading(where: str) -> bool:
    """Whether it is a patch that comes onto the card, once for all rows."""
    return "farm/render/patching.py" in where and ", in _kept\n" in where


Rendered = Callable[[Sequence[Settings]], Counting]


@pytest.fixture
def files(halved: Networks) -> Files:
    """A LoRA and a hypernetwork, on the host."""
    tensors = kohya(factors(halved.unet, 4, 0), "lora_unet_", 2.0)
    tensors |= kohya(factors(halved.text_encoder, 4, 1), "lora_te_text_model_", 2.0)
    network = {"linear.0.weight": torch.randn(128, 128) / 99, "linear.0.bias": torch.zeros(128)}
    tree = {128: (network, network), "layer_structure": [1, 1], "activation_func": "relu"}
    pen = read_hypernetwork(tree, "pen")
    return Files(lora=lambda _: LoraFile(tensors, {}), hypernetwork=lambda _: pen)


@pytest.fixture
def rendered(halved: Networks, files: Files, card: Card) -> Rendered:
    """Renders cells, and sees to it that the host waited for nothing, but where diffusers' schedulers do."""

    def rendered(cells: Sequence[Settings]) -> Counting:
        runner = Counting(halved, "cuda:0", files=files)
        pictures = render(cells, runner, pictures={PICTURE: FILE})
        assert [picture.shape for picture in pictures] == [(one.height, one.width, 3) for one in cells]
        waits = [where for where in card.waits if not (is_of_diffusers(where) or is_loading(where))]
        assert waits == [], waits[0]
        return runner

    return rendered


def half(sampler: str, steps: int, **others: object) -> Settings:
    return settings(sampler, steps, precision="fp16", **others)


@pytest.mark.slow
def test_samplers(rendered: Rendered) -> None:
    rendered([half(row.name, 5) for row in BUILT_IN.samplers])


@pytest.mark.slow
def test_schedulers_of_diffusers(rendered: Rendered) -> None:
    rendered([half(name, 3) for name in SCHEDULERS])


@pytest.mark.slow
def test_samplers_from_pictures(rendered: Rendered) -> None:
    names = [row.name for row in BUILT_IN.samplers if row.starts_from_pictures]
    rendered([half(name, 5, init_image=PICTURE) for name in (*names, "diffusers:DDIMScheduler")])


@pytest.mark.slow
def test_other_noise_and_prompts(rendered: Rendered) -> None:
    adaptive = settings("DPM adaptive", 3, init_image=PICTURE, denoising_strength=0.5)
    long = settings("Euler", 3, prompt="a (cat:0.7) BREAK " + "dog " * 90)
    rendered([replace(one, precision="fp16") for one in (*OTHER_NOISE_AND_PROMPTS, adaptive, long)])


@pytest.mark.slow
def test_approximations(rendered: Rendered) -> None:
    cells = [
        half("Euler", 6, deepcache_interval=3),
        half("Heun", 5, deepcache_interval=2, deepcache_branch=1),
        half("Euler a", 5, token_merging_ratio=0.5),
        half("Euler", 5, guidance_stop=0.5),
        half("Euler", 5, negative_guidance_minimum_sigma=3.0),
    ]
    rendered(cells)


@pytest.mark.slow
def test_patches(rendered: Rendered) -> None:
    """On a card projections are fused."""
    tags = ["<lora:ink:0.5>", "<lora:ink:1>", "<hypernet:pen:0.5>", "<lora:ink:1><hypernet:pen:1>"]
    prompts = [f"a cat {tag}" for tag in tags]
    cells = [half("Euler", 3, prompt=prompt, cfg_scale=scale) for prompt in prompts for scale in (3.0, 5.0)]
    cells += [half("Heun", 3, prompt=prompts[-1], deepcache_interval=2, token_merging_ratio=0.5)]
    rendered(cells)


@pytest.mark.parametrize("halved", ["sdxl", "inpainting"], indirect=True)
@pytest.mark.slow
def test_other_architectures(rendered: Rendered) -> None:
    """Which are told more, and shown more; SDXL's VAE works in fp32."""
    asked = [half("Euler a", 3), half("Heun", 3, prompt="a (cat:1.3) AND a hat :0.6", negative_prompt="")]
    asked += [half("Euler", 3, init_image=PICTURE), half("diffusers:DDIMScheduler", 3, width=72)]
    asked += [half("Euler", 4, deepcache_interval=2), half("Euler", 4, token_merging_ratio=0.5)]
    rendered(asked)


@pytest.fixture(params=["tiny_model", "sdxl_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    """To be asked for before the card: on it nothing can be saved."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.slow
def test_the_whole_way_of_a_renderer(
    compiles: bool, folder: Path, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured batches, the card's own clock; with graphs, but for what the compiler makes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch, "compile", lambda call, dynamic: call)
    renderer = Renderer({"tiny": folder}, "cuda:0", compiled=compiles)
    for number in range(40):
        renderer.submit(Cell(number, (), half("Euler a", 4, seed=number)))
    found = []
    while not renderer.idle:
        found += renderer.step()
    renderer.close()
    work = renderer.take_work()
    assert len(found) == 40 and [one.error for one in found if one.error] == [] and work.notes == ()
    assert card.waits == [], card.waits[0]
    assert work.of("predict").seconds > 0 and work.device == "a played card"
    assert bool(work.of("compile").calls) == compiles
    assert (tmp_path / "farm-sd" / "capacity.json").exists()


def test_what_it_cannot_do_is_seen(card: Card) -> None:
    there = torch.ones(3).pin_memory().to(DEVICE, non_blocking=True)
    with torch.inference_mode(), pytest.raises(AssertionError, match="mixes devices"):
        there + torch.ones(3)
    assert card.waits == []
    assert (there.sum().item(), there.to("cpu").tolist()) == (0.5, [1, 1, 1]) and len(card.waits) == 2
    torch.ones(3).pin_memory().to(DEVICE)
    torch.ones(3).to(DEVICE, non_blocking=True)
    assert len(card.waits) == 4
    there.copy_(torch.ones(3))
    there.copy_(torch.ones(3, pin_memory=False).pin_memory(), non_blocking=True)
    assert len(card.waits) == 5
