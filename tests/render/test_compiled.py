"""Compilation with PyTorch's inductor, for real: it needs a C++ compiler, as every CPU that compiles does."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from farm.cell import Settings
from farm.render.capacity import Capacity
from farm.render.clock import Clock
from farm.render.compiled import SEEN, Compiled, plainly
from farm.render.requests import Predict, Weights
from farm.render.runner import Runner
from farm.render.told import Conditioning
from farm.render.tuning import faster
from farm.weights.checkpoint import Networks
from farm.weights.loading import load_checkpoint
from tests.render.rendering import LEVELS, Counting, apart, render
from tests.render.scarce import Telling

CPU = torch.device("cpu")
FULL = 4


@pytest.fixture(scope="module")
def small() -> Any:
    """A UNet that compiles in seconds."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    channels = {"block_out_channels": (16,), "cross_attention_dim": 8, "attention_head_dim": 8}
    unet = UNet2DConditionModel(sample_size=8, layers_per_block=1, norm_num_groups=4, **blocks, **channels)
    return unet.eval().requires_grad_(False)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, so that it really compiles."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch._dynamo.reset()
    before = sys.getrecursionlimit()  # which the compiler raises for good
    yield tmp_path / "farm-sd" / "compiled"
    sys.setrecursionlimit(before)
    torch._dynamo.reset()


def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    inputs, states = (torch.randn(rows, *shape, generator=generator) for shape in ((4, 8, 8), (5, 8)))
    return inputs, torch.rand(rows, generator=generator) * 999, states


@pytest.mark.slow
@torch.inference_mode()
def test_full_batches_are_compiled_when_they_come_again_and_answer_the_same(small: Any, kept: Path) -> None:
    notes: list[str] = []
    compiled, plain, inputs = Compiled(small, CPU, notes.append), plainly(small), batch(FULL)
    row = Predict(Weights("m"), inputs[0][0], 0.0, Conditioning(inputs[2][0]))
    for _ in range(SEEN):
        assert torch.equal(compiled(*inputs, full=True), plain(*inputs)) and not compiled.has(FULL, row)
    for _ in range(2):
        torch.testing.assert_close(compiled(*inputs, full=True), plain(*inputs), rtol=1e-4, atol=1e-5)
    assert compiled.has(FULL, row) and not compiled.has(FULL - 1, row) and notes == []
    assert any(kept.rglob("*.so"))
    for _ in range(SEEN + 2):
        thin = batch(FULL - 1)
        assert torch.equal(compiled(*thin, full=False), plain(*thin))


@pytest.mark.slow
@torch.inference_mode()
def test_without_a_compiler_it_goes_on_and_says_so(small: Any, kept: Path) -> None:
    notes: list[str] = []
    compiled, inputs = Compiled(small, CPU, notes.append), batch(FULL)
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        for _ in range(SEEN + 3):
            assert torch.equal(compiled(*inputs, full=True), plainly(small)(*inputs))
    [note] = notes
    assert note.startswith("the UNet could not be compiled, and runs without: ") and "\n" not in note


@pytest.mark.slow
def test_batches_that_are_nearly_full_are_filled_up_to_what_is_compiled(
    small: Any, networks: Networks, kept: Path
) -> None:
    sizes: list[int] = []
    small.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    own, memory, clock = replace(networks, unet=small), Telling(10**9), Clock()
    capacity, noted, apart = Capacity(CPU, FULL, memory=memory), list[int](), list[str]()
    capacity.note = lambda *what: noted.append(what[1])  # type: ignore[method-assign]
    runner = Runner(lambda *_: own, CPU, capacity=capacity, compiles=True, memory=memory, clock=clock)
    inputs, times, states = batch(FULL)
    rows = [
        Predict(Weights("m"), one, float(time), Conditioning(state))
        for one, time, state in zip(inputs, times, states)
    ]
    with torch.inference_mode():
        for _ in range(SEEN):
            runner.run(rows)
        assert sizes == [FULL] * SEEN == noted
        runner.run(rows[:3])
        assert sizes[SEEN:] == [3] == noted[SEEN:]
        with clock.call(lambda _, parts: apart.extend(kind.request for kind in parts)):
            runner.run(rows)
        assert apart == ["compile"] and noted[SEEN:] == [3]  # what compiling takes is no measure
        del sizes[:]
        short = [runner.run(rows[:count]) for count in (1, 2, 3)]
    assert sizes[:2] == [1, 2]  # three are filled up to four
    assert noted[SEEN + 1 :] == [1, 2, FULL] and runner.filled_up == 1
    merged = [replace(row, token_merging_ratio=0.5) for row in rows[:3]]
    with torch.inference_mode():
        runner.run(merged)
    assert noted[-1] == 3  # these are not compiled
    with torch.inference_mode():
        for answers in short:
            expected = plainly(small)(*(tensor[: len(answers)] for tensor in (inputs, times, states)))
            torch.testing.assert_close(torch.stack(answers), expected, rtol=1e-4, atol=1e-5)
    assert runner.take_notes() == () == runner.take_notes()


def test_what_makes_cards_faster_changes_roundings_only(tiny_model: Path, networks: Networks) -> None:
    cells = [Settings("m", "a cat", "a dog", "Euler", 6, 5.0, seed, 64, 64) for seed in (1, 2, 3)]
    tuned = faster(load_checkpoint(tiny_model, CPU, torch.float32))
    assert tuned.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(render(cells, Counting(tuned)), render(cells, Counting(networks))):
        assert apart(one, other) <= LEVELS
