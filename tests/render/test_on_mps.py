"""What Apple's mps cannot do, looked for without one: every picture's path over a device without data."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from farm.cell import Settings
from farm.diffusers_schedulers import scheduler_facts, suited
from farm.render import draws
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from farm.weights.loading import load_checkpoint
from tests.render.rendering import Counting, cat_file, render
from tests.render.test_scheduler import WORDS
from tests.render.tiny_sdxl import inpainting_parts, saved, sdxl_parts
from tests.render.unit_variance import settings

DEVICE = torch.device("meta")
"""Tensors on it have a shape and a type, and no numbers."""

aten = torch.ops.aten


def of_device(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor) and leaf.device == DEVICE]


class Apple(TorchDispatchMode):
    """Raises where Apple's device would, or would silently be wrong.

    Attributes:
        read_back: numbers that the host asked of the device, each of which it waits for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read_back = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # of an operation made of others, these
            if (answer := func.decompose(*args, **kwargs)) is not NotImplemented:
                return answer
        if func is aten._local_scalar_dense.default and of_device(args):
            self.read_back += 1
            return 0.5
        if func is aten._to_copy.default:
            return self._copied(args[0], **kwargs)
        on_device = of_device((args, kwargs))
        if on_device and func is not aten.copy_.default:
            hosts = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            assert all(leaf.device == DEVICE or leaf.dim() == 0 for leaf in hosts), f"{func} mixes devices"
        answer = func(*args, **kwargs)
        self._check(func, answer)
        return answer

    def _copied(self, source: torch.Tensor, **how: Any) -> torch.Tensor:
        to = torch.device(how.get("device") or source.device)
        if source.device == DEVICE and to.type == "cpu":
            return torch.ones(source.shape, dtype=how.get("dtype") or source.dtype)
        assert to != DEVICE or source.device == DEVICE or not how.get("non_blocking"), "source may be gone"
        self._check(aten._to_copy.default, answer := aten._to_copy.default(source, **how))
        return answer

    def _check(self, func: Any, answer: Any) -> None:
        wide = [leaf.dtype for leaf in of_device(answer) if leaf.dtype in (torch.float64, torch.complex128)]
        assert not wide, f"{func} gives {wide} on the device"


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> Iterator[Apple]:
    """Modes are of a thread: those that draw noise get their own."""
    drawn = draws._drawn

    def drawn_for_apple(draw: Any) -> Any:
        with Apple():
            return drawn(draw)

    monkeypatch.setattr(draws, "_drawn", drawn_for_apple)
    with Apple() as mode:
        yield mode


@pytest.fixture(scope="module")
def far_away(tiny_model: Path) -> Networks:
    return load_checkpoint(tiny_model, DEVICE, torch.float16)


def rendered(cells: list[Settings], networks: Networks, files: Mapping[str, bytes] | None = None) -> None:
    pictures = render(cells, Counting(networks, "meta"), pictures=files or {})
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * len(cells)


SCHEDULERS = [
    f"diffusers:{name}{WORDS.get(name, '')}" for name in sorted(suited()) if not scheduler_facts(name).is_flow
]


SAMPLERS = [row.name for row in BUILT_IN.samplers if not row.chooses_steps]


@pytest.mark.slow
def test_samplers(apple: Apple, far_away: Networks) -> None:
    rendered([settings(name, 5) for name in SAMPLERS], far_away)
    assert apple.read_back == 0


@pytest.mark.slow
def test_the_sampler_that_reads_numbers_back(apple: Apple, far_away: Networks) -> None:
    """Through the engine, which goes on meanwhile where the device lets it."""
    rendered([settings("DPM adaptive", 5)], far_away)
    assert apple.read_back == 0


@pytest.mark.slow
def test_schedulers_of_diffusers(apple: Apple, far_away: Networks) -> None:
    rendered([settings(name, 3) for name in SCHEDULERS], far_away)


OTHER_NOISE_AND_PROMPTS = [
    settings("DPM++ SDE", 3, rng="nv"),
    settings("Euler a", 3, rng="nv", variation_strength=0.3, variation_seed=5),
    settings("Euler", 3, seed_resize_from_width=96, seed_resize_from_height=32, guidance_rescale=0.7),
    settings("Euler a", 3, prompt="a [red:blue:0.5] (cat:1.3) AND a hat :0.6", eta_noise_seed_delta=7),
    settings("Heun", 3, prompt="a (cat:1.3)", emphasis="comfyui", clip_skip=2),
    settings("Euler", 3, prompt="a (cat:0.7)", emphasis="no norm"),
]


@pytest.mark.slow
def test_other_noise_and_prompts(apple: Apple, far_away: Networks) -> None:
    rendered(OTHER_NOISE_AND_PROMPTS, far_away)
    assert apple.read_back == 0


@pytest.mark.slow
def test_pictures_to_start_from(apple: Apple, far_away: Networks) -> None:
    key, file = cat_file()
    names = ("Euler a", "DPM++ 2M", "DPM++ SDE", "UniPC", "LCM", "Restart", "DDIM")
    names += ("diffusers:EulerAncestralDiscreteScheduler", "diffusers:UniPCMultistepScheduler")
    rendered([settings(name, 5, init_image=key) for name in names], far_away, {key: file})
    assert apple.read_back == 0


@pytest.mark.parametrize("made", [sdxl_parts, inpainting_parts])
@pytest.mark.slow
def test_other_architectures(made: Any, apple: Apple, tiny_model: Path, tmp_path: Path) -> None:
    """Which are told more, and shown more; SDXL's VAE works in fp32."""
    key, file = cat_file()
    networks = load_checkpoint(saved(tmp_path, made(tiny_model / "tokenizer")), DEVICE, torch.float16)
    asked = [settings("Euler a", 3), settings("Heun", 3, prompt="a (cat:1.3) AND a hat", negative_prompt="")]
    asked += [settings("Euler", 3, init_image=key), settings("diffusers:DDIMScheduler", 3)]
    rendered(asked, networks, {key: file})
    assert apple.read_back == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.to(DEVICE, non_blocking=True),
        lambda x: x.double().to(DEVICE),
        lambda x: x.to(DEVICE).double(),
        lambda x: torch.zeros(3, dtype=torch.float64, device=DEVICE),
        lambda x: x.to(DEVICE) + x,
    ],
)
def test_what_it_cannot_do_is_seen(wrong: Any, apple: Apple) -> None:
    with torch.inference_mode(), pytest.raises(AssertionError):
        wrong(torch.ones(3))
