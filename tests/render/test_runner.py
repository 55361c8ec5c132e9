import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from farm.errors import CellFailed
from farm.ordering import LOADED_AT_ONCE
from farm.prompts.chunks import Chunk
from farm.prompts.emphasis import Piece
from farm.render.memory import Memory
from farm.render.model import Model
from farm.render.requests import Decode, EncodeText, Open, Predict, Request, Weights
from farm.render.runner import Runner
from farm.render.told import Conditioning, Encoded
from farm.weights.checkpoint import Networks
from tests.render.scarce import Forgetful

CPU = torch.device("cpu")
M = Weights("m")


class Loading:
    """Counts loads; every load gives networks of its own around the same modules."""

    def __init__(self, networks: Networks, broken: tuple[str, ...] = ()) -> None:
        self.networks, self.broken, self.asked = networks, broken, []
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def __call__(self, name: str, device: torch.device, dtype: torch.dtype) -> Networks:
        self.asked.append(name)
        if name in self.broken:
            raise CellFailed(f"{name} is broken")
        parts = {part: getattr(self.networks, part) for part in ("vae", "text_encoder", "tokenizer")}
        unet: Any = torch.nn.Module()
        unet.config = self.networks.unet.config
        self.alive.add(unet)
        return Networks(unet=unet, scheduler_config=self.networks.scheduler_config, **parts)


@pytest.fixture
def runner(networks: Networks) -> Runner:
    return Runner(lambda *_: networks, CPU)


def opened(runner: Runner) -> Model:
    [model] = runner.run([Open(M)])
    assert isinstance(model, Model)
    return model


@pytest.mark.parity
@pytest.mark.parametrize("clip_skip", [1, 2])
@pytest.mark.parametrize("text", ["", "a ginger cat, (wearing) a hat", "Ünïcode 猫"])
@torch.inference_mode()
def test_text_is_encoded_as_diffusers_does(
    text: str, clip_skip: int, runner: Runner, pipeline: StableDiffusionPipeline
) -> None:
    tokenizer = opened(runner).tokenizer
    [chunk] = map(tokenizer.filled, tokenizer.chunks([(Piece(text, 1.0),)]))
    [([states], _)] = runner.run([EncodeText(M, chunk, clip_skip)])
    theirs, _ = pipeline.encode_prompt(text, "cpu", 1, False, clip_skip=clip_skip - 1 or None)
    torch.testing.assert_close(states, theirs[0], rtol=0, atol=1e-5)


def test_rows_of_a_batch_are_answered_as_if_alone(runner: Runner) -> None:
    generator = torch.Generator().manual_seed(0)
    [encoded] = runner.run([EncodeText(M, opened(runner).tokenizer.filled(Chunk()), 1)])
    states = [torch.randn(encoded.states[0].shape, generator=generator) for _ in range(3)]
    rows = [
        Predict(M, torch.randn(4, 8, 8, generator=generator), time, Conditioning(state))
        for time, state in zip((0.0, 431.25, 999.0), states)
    ]
    with torch.inference_mode():
        together, alone = runner.run(rows), [runner.run([row])[0] for row in rows]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    assert all(answer.dtype == torch.float32 and answer.shape == (4, 8, 8) for answer in together)


def test_nan_fails_its_own_picture_only(runner: Runner) -> None:
    good, bad = torch.zeros(4, 8, 8), torch.full((4, 8, 8), float("nan"))
    with torch.inference_mode():
        one, failed, other = runner.run([Decode(M, latents) for latents in (good, bad, good)])
    assert one.shape == (64, 64, 3) and one.dtype == torch.uint8 and torch.equal(one, other)
    assert isinstance(failed, CellFailed) and "NaN" in str(failed)


def test_a_checkpoint_is_loaded_once_and_the_longest_unused_let_go(networks: Networks) -> None:
    runner = Runner(load := Loading(networks), CPU, memory=Forgetful())
    models = [runner.run([Open(Weights(name))] * 3) for name in ("a", "b", "a", "c", "a", "b")]
    gc.collect()
    assert load.asked == ["a", "b", "c", "b"]
    assert len(load.alive) == LOADED_AT_ONCE and len(models) == 6  # who holds a Model keeps no network


def test_a_checkpoint_that_is_done_with_goes_first(networks: Networks) -> None:
    runner = Runner(load := Loading(networks), CPU, memory=Forgetful())
    for name in ("a", "b"):
        runner.run([Open(Weights(name))])
    runner.done_with(Weights("b"))
    runner.done_with(Weights("never loaded"))
    for name in ("c", "a"):
        runner.run([Open(Weights(name))])
    assert load.asked == ["a", "b", "c"]


def test_a_checkpoint_that_cannot_be_opened_is_tried_once_for_all_who_ask(networks: Networks) -> None:
    runner = Runner(load := Loading(networks, broken=("bad",)), CPU)
    answers = runner.run([Open(Weights("bad"))] * 8)
    assert [str(answer) for answer in answers] == ["bad is broken"] * 8 and load.asked == ["bad"]


@pytest.mark.slow
def test_makes_room_for_a_checkpoint_that_does_not_fit_beside_another(networks: Networks) -> None:
    inner = Loading(networks)

    def load(name: str, device: torch.device, dtype: torch.dtype) -> Networks:
        gc.collect()
        if inner.alive:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(name, device, dtype)

    runner = Runner(load, CPU)
    for name in ("a", "b", "a"):
        assert isinstance(runner.run([Open(Weights(name))])[0], Model)
    assert inner.asked == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("precision", "device", "dtype"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.float16),
        ("auto", "mps", torch.float16),
        ("fp32", "cuda", torch.float32),
        ("bf16", "cpu", torch.bfloat16),
        ("fp16", "cuda", torch.float16),
    ],
)
def test_networks_are_loaded_in_the_precision_asked(
    precision: str, device: str, dtype: torch.dtype, networks: Networks
) -> None:
    asked = []
    runner = Runner(lambda *how: asked.append(how) or networks, torch.device(device), memory=Memory(CPU))
    runner.run([Open(Weights("m", precision))])
    assert asked == [("m", CPU, dtype)]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 8])
def test_in_a_bucket_an_answer_does_not_depend_on_its_neighbours(rows: int, networks: Networks) -> None:
    """To the bit, as long as the bucket is the same: its own is filled up to that of the eight."""
    generator = torch.Generator().manual_seed(rows)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def wanted(kind: int) -> Request:
        if kind == 0:
            time = 999 * float(torch.rand(1, generator=generator))
            return Predict(M, random(4, 8, 8), time, Conditioning(random(77, 128)))
        if kind == 1:
            return Decode(M, random(4, 8, 8))
        return EncodeText(M, tuple(torch.randint(0, 99, (77,), generator=generator).tolist()), 1)

    runner = Runner(lambda *_: networks, CPU, buckets=(8,))

    def answers(batch: list[Request]) -> list[torch.Tensor]:
        return [one.states[0] if isinstance(one, Encoded) else one for one in runner.run(batch)]

    with torch.inference_mode():
        for kind in range(3):
            batch, others = [wanted(kind) for _ in range(8)], [wanted(kind) for _ in range(8)]
            together = answers(batch)[:rows]
            assert all(map(torch.equal, together, answers(batch[:rows])))
            assert all(map(torch.equal, together, answers([*batch[:rows], *others[rows:]])))
            [alone] = answers(batch[rows - 1 : rows])
            assert torch.equal(together[-1], alone)


def test_batches_have_the_sizes_of_the_buckets(networks: Networks) -> None:
    sizes: list[int] = []
    unet = Noting(networks.unet, sizes)
    runner = Runner(lambda *_: replace(networks, unet=unet), CPU, buckets=(1, 4, 6))
    row = Predict(M, torch.zeros(4, 8, 8), 5.0, Conditioning(torch.zeros(77, 128)))
    with torch.inference_mode():
        assert [len(runner.run([row] * rows)) for rows in (1, 2, 4, 5, 6, 7, 14)] == [1, 2, 4, 5, 6, 7, 14]
    assert sizes == [1, 4, 4, 6, 6, 6, 1, 6, 6, 4]


class Noting:
    """The network, and the rows of its calls."""

    def __init__(self, unet: Any, sizes: list[int]) -> None:
        self.unet, self.sizes, self.config = unet, sizes, unet.config

    def to(self, device: torch.device) -> None:
        self.unet.to(device)

    def parameters(self) -> Any:
        return self.unet.parameters()

    def named_parameters(self) -> Any:
        return self.unet.named_parameters()

    def __call__(self, rows: torch.Tensor, *rest: Any, **options: Any) -> Any:
        self.sizes.append(len(rows))
        return self.unet(rows, *rest, **options)
