"""What only a real NVIDIA card can show: its noise, and that its pictures are those of a CPU."""

import copy
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from farm.cell import Cell, Settings
from farm.diffusers_schedulers import scheduler_facts, suited
from farm.render.compiled import SEEN, Compiled, Graph, plainly
from farm.render.memory import Memory
from farm.render.offloading import Streamed
from farm.render.philox import PhiloxNormals
from farm.render.placement import Rung
from farm.render.renderer import Renderer
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from farm.weights.loading import load_checkpoint
from tests.render.rendering import Counting, apart, cat_file, levels_of, render
from tests.render.test_scheduler import WORDS
from tests.render.unit_variance import settings

pytestmark = [pytest.mark.card, pytest.mark.parity]

SAMPLERS = [row.name for row in BUILT_IN.samplers]
SCHEDULERS = [
    f"diffusers:{name}{WORDS.get(name, '')}" for name in sorted(suited()) if not scheduler_facts(name).is_flow
]

UNSTEADY = ("DPM fast", "DPM adaptive")
"""At 12 steps the one takes few long steps, and the other's number of steps hangs on rounding."""


@pytest.fixture(scope="module", autouse=True)
def exact_convolutions() -> Iterator[None]:
    """Without TensorFloat-32, whose 10 bits would hide what else differs."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def on_card(tiny_model: Path) -> Counting:
    return Counting(load_checkpoint(tiny_model, torch.device("cuda"), torch.float32), "cuda")


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 64, 64), (4, 96, 64), (4, 128, 128)], ids=str)
@pytest.mark.parametrize("seed", [0, 42, 3805052747, 2**40 + 7])
def test_nv_noise_is_what_the_card_draws(seed: int, shape: tuple[int, ...]) -> None:
    generator, ours = torch.Generator("cuda").manual_seed(seed), PhiloxNormals(seed)
    for _ in range(3):
        drawn = torch.randn(shape, generator=generator, device="cuda").cpu()
        torch.testing.assert_close(ours.draw(shape), drawn, rtol=1e-6, atol=2e-6)


def wanted(sampler: str) -> Settings:
    return settings(sampler, 12, precision="fp32", prompt="a ginger cat with green eyes on a blue background")


@pytest.mark.parametrize("sampler", [*SAMPLERS, *SCHEDULERS])
def test_pictures_are_those_of_a_cpu(sampler: str, on_card: Counting, networks: Networks) -> None:
    cell = wanted(sampler)
    assert apart(render([cell], on_card)[0], render([cell], Counting(networks))[0]) <= levels_of(cell)


PROMPTS = [
    "a [ginger:black:0.4] cat, (green eyes:1.4), [hat|scarf]",
    "a ginger cat AND a blue background :0.6 AND a hat :-0.4",
    "a ginger cat BREAK green eyes BREAK a blue background",
    ", ".join(["a red cat with a hat"] * 29),
]


@pytest.mark.parametrize("emphasis", ["original", "no norm", "comfyui"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_those_of_a_cpu(
    prompt: str, emphasis: str, on_card: Counting, networks: Networks
) -> None:
    cell = replace(wanted("Euler"), prompt=prompt, emphasis=emphasis)
    assert apart(render([cell], on_card)[0], render([cell], Counting(networks))[0]) <= levels_of(cell)


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "DDIM", "UniPC", "diffusers:DDIMScheduler"])
def test_pictures_that_start_from_pictures_are_those_of_a_cpu(
    sampler: str, on_card: Counting, networks: Networks
) -> None:
    key, file = cat_file()
    cells = [
        replace(wanted(sampler), init_image=key, denoising_strength=strength, width=width)
        for strength in (0.4, 0.9)
        for width in (64, 96)
    ]
    ours = render(cells, on_card, pictures={key: file})
    theirs = render(cells, Counting(networks), pictures={key: file})
    assert max(map(apart, ours, theirs)) <= levels_of(cells[0])


def test_a_mixed_batch_is_its_cells(on_card: Counting) -> None:
    cells = [wanted(sampler) for sampler in (*SAMPLERS, *SCHEDULERS)]
    cells += [replace(wanted("Heun"), prompt=prompt) for prompt in PROMPTS]
    together = render(cells, on_card)
    alone = [render([cell], on_card)[0] for cell in cells]
    far = [(cell, apart(one, other)) for cell, one, other in zip(cells, together, alone, strict=True)]
    assert [(cell.sampler, levels) for cell, levels in far if levels > levels_of(cell)] == []


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_draws_the_same_cats(precision: str, tiny_model: Path, on_card: Counting) -> None:
    """Up to rounding, which 12 steps carry on: another cat is some 40 levels away on average."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    cells = [replace(wanted(name), precision=precision) for name in SAMPLERS if name not in UNSTEADY]
    halved = render(cells, Counting(load_checkpoint(tiny_model, torch.device("cuda"), dtype), "cuda"))
    whole = render([wanted(cell.sampler) for cell in cells], on_card)
    far = {
        cell.sampler: float(np.abs(one.astype(int) - other.astype(int)).mean())
        for cell, one, other in zip(cells, halved, whole, strict=True)
    }
    assert max(far.values()) < 12, far


CARD = torch.device("cuda")


@pytest.fixture(scope="module")
def large(networks: Networks) -> Networks:
    """As large as Stable Diffusion 1.5, in half precision on the host, with random weights."""
    torch.manual_seed(1)
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    words = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, vocab_size=49408)
    with CARD:
        parts = {
            "unet": UNet2DConditionModel(cross_attention_dim=768),
            "vae": AutoencoderKL(block_out_channels=[128, 256, 512, 512], layers_per_block=2, **kinds),
            "text_encoder": CLIPTextModel(words),
        }
    halved = {name: part.half().eval().requires_grad_(False).cpu() for name, part in parts.items()}
    return Networks(tokenizer=networks.tokenizer, scheduler_config=networks.scheduler_config, **halved)


@pytest.fixture
def limited() -> Iterator[Callable[[float], int]]:
    """Lets this process have so many GiB of the card; returns them in bytes."""
    total = torch.cuda.get_device_properties(CARD).total_memory

    def limit(gib: float) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total)
        return int(gib * 2**30)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize(
    ("gib", "size", "rung"),
    [
        (6.0, 512, Rung.WHOLE),
        (3.05, 512, Rung.VISITING),
        (2.2, 512, Rung.STREAMED),
        (2.2, 1024, Rung.STREAMED),
    ],
)
def test_a_small_card_renders_what_a_large_one_does(
    gib: float, size: int, rung: Rung, large: Networks, limited: Callable[[float], int]
) -> None:
    """Up to the rounding of other batches: there is room for smaller ones. It may go lower than it begins."""
    cells = [settings("Euler", 3, precision="fp16", width=size, height=size, seed=seed) for seed in (1, 2, 3)]
    whole = render(cells, Counting(copy.deepcopy(large), "cuda"))
    gc.collect()
    most = limited(gib)
    again = render(cells, runner := Counting(copy.deepcopy(large), "cuda"))
    [placed] = [loaded.networks for loaded in runner._checkpoints._loaded.values()]
    assert placed.rung >= rung and bool(runner.notes) == (placed.rung > Rung.WHOLE), runner.notes
    assert torch.cuda.max_memory_reserved() <= most
    assert max(map(apart, again, whole)) <= 4 and min(picture.std() for picture in whole) > 0


def test_copies_of_weights_do_not_overtake_what_is_computed(large: Networks) -> None:
    """Nothing waits on the host, so each call begins while the one before it still runs."""
    unet = copy.deepcopy(large.unet)
    x, states = torch.randn(1, 4, 64, 64).half().to(CARD), torch.randn(1, 77, 768).half().to(CARD)
    times = [torch.tensor([float(time)], device=CARD) for time in range(0, 1000, 50)]
    with torch.inference_mode():
        streamed = Streamed(unet, Memory(CARD), 2**26)
        answers = [unet(x, time, states, return_dict=False)[0] for time in times]
        streamed.end()
        unet.to(CARD)
        wanted = [unet(x, time, states, return_dict=False)[0] for time in times]
    torch.testing.assert_close(answers, wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_whole_way_of_a_renderer(
    compiled: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, networks: Networks
) -> None:
    """Pinned copies, pictures that come later, measured batches; with graphs of batches of many sizes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cells = [settings("Euler a", 12, precision="fp32", seed=seed) for seed in range(40)]
    cells += [replace(cell, sampler="DPM++ 2M", steps=3 + cell.seed % 9) for cell in cells]
    cells += [replace(cell, sampler="DPM++ SDE", steps=6) for cell in cells[:20]]
    started = time.perf_counter()
    renderer = Renderer({"tiny": tiny_model}, "cuda", compiled=compiled)
    for number, cell in enumerate(cells):
        renderer.submit(Cell(number, (), cell))
    rendered = {}
    while not renderer.idle:
        rendered |= {one.cell.number: one for one in renderer.step()}
    seconds = time.perf_counter() - started
    renderer.close()
    work = renderer.take_work()
    assert work.notes == () and not [one.error for one in rendered.values() if one.error]
    on_cpu = render(cells, Counting(networks))
    for number, picture in enumerate(on_cpu):
        assert apart(np.asarray(rendered[number].image), picture) <= levels_of(cells[number])
    assert work.of("predict").rows > 16 * work.of("predict").calls
    assert (tmp_path / "farm-sd" / "capacity.json").exists()
    of_cells = sum(one.seconds for one in rendered.values())
    beside = ("compile", "load")
    of_kinds = sum(tally.seconds for kind, tally in work.tallies.items() if kind.request not in beside)
    assert 0 < of_cells == pytest.approx(of_kinds, rel=0.05)
    assert of_kinds < seconds
    assert bool(work.of("compile").seconds) == compiled


def small_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    channels = {"block_out_channels": (32,), "cross_attention_dim": 16, "attention_head_dim": 8}
    unet = UNet2DConditionModel(sample_size=16, layers_per_block=1, norm_num_groups=4, **blocks, **channels)
    return unet.eval().requires_grad_(False).to(CARD)


def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, states = torch.randn(rows, 4, 16, 16, device=CARD), torch.randn(rows, 77, 16, device=CARD)
    return x, torch.rand(rows, device=CARD) * 999, states


@torch.inference_mode()
def test_graphs_of_several_shapes_share_their_memory() -> None:
    """Each answers as a plain call does, whichever ran before it; nothing else may use what they keep."""
    unet, notes, memory = small_unet(), list[str](), Memory(CARD)
    compiled, plain = Compiled(unet, CARD, notes.append), plainly(unet)
    answers, wanted = [], []
    for call in range(6 * (SEEN + 3)):
        given = batch(1 + call % 6)
        answers.append(compiled(*given, full=False))
        wanted.append(plain(*given))
    torch.testing.assert_close(answers, wanted, rtol=1e-3, atol=1e-4)
    assert notes == []
    assert sum(isinstance(call, Graph) for call in compiled._faster.values()) == 6
    before = memory.free
    memory.count_graphs()
    assert before - memory.free == memory._in_graphs > 0


@torch.inference_mode()
def test_what_cannot_be_captured_runs_without_and_says_so() -> None:
    unet, notes = small_unet(), list[str]()

    def wait(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        given[0].sum().item()  # which no capture bears

    unet.register_forward_pre_hook(wait)
    compiled, plain = Compiled(unet, CARD, notes.append), plainly(unet)
    for _ in range(SEEN + 3):
        given = batch(2)
        torch.testing.assert_close(compiled(*given, full=False), plain(*given))
    [note] = notes
    assert note.startswith("the UNet could not be captured, and runs without: ")
    more = batch(3)  # the stream is an ordinary one again
    torch.testing.assert_close(compiled(*more, full=False), plain(*more))
