"""Faults injected around real networks: only the cells concerned are touched, and nothing hangs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from farm.cell import Cell, Settings
from farm.prompts.emphasis import Piece
from farm.questions import Denoise
from farm.render.admission import MOST_TRIES
from farm.render.noise import TorchNormals
from farm.render.renderer import Rendered, Renderer
from farm.render.requests import Decode, EncodeText, Fetch, Open, Predict, Request
from farm.render.runner import Runner
from farm.render.samplers import SAMPLERS
from farm.resolving import resolved
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from farm.weights.tokenizer import Tokenizer
from tests.render.rendering import ADAPTIVE_LEVELS, LEVELS, apart

pytestmark = pytest.mark.timeout(120)

BASE = Settings("m", "portrait of beautiful cat", "blurry", "Euler", 4, 5.0, 17, 64, 64)
CELLS = [replace(BASE, seed=seed, sampler=sampler) for seed in (1, 2, 3) for sampler in ("Euler", "Heun")]
KINDS = (Open, EncodeText, Predict, Decode)

Fault = Callable[[list[Request]], None]
Spoil = Callable[[list[Request], list[Any]], list[Any]]


class Faulty(Runner):
    """The real runner; `before` may raise, `after` may change the answers."""

    before: Fault = staticmethod(lambda requests: None)
    after: Spoil = staticmethod(lambda requests, answers: answers)
    calls: list[tuple[type, int]]

    def run(self, requests: list[Request]) -> list[Any]:
        self.calls.append((type(requests[0]), len(requests)))
        self.before(requests)
        return self.after(requests, super().run(requests))


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[Faulty]:
    """The runner of every renderer made in this test."""

    class Ours(Faulty):
        calls = []

    monkeypatch.setattr("farm.render.renderer.Runner", Ours)
    return Ours


@pytest.fixture
def renderer(faulty: type[Faulty], tiny_model: Path) -> Iterator[Renderer]:
    made = Renderer({"m": tiny_model}, "cpu")
    yield made
    made.close()


def render(renderer: Renderer, cells: Sequence[Settings], at_most: int = 2000) -> dict[Settings, Rendered]:
    for number, settings in enumerate(cells, 1):
        renderer.submit(Cell(number, (), settings))
    rendered: list[Rendered] = []
    for _ in range(at_most):
        rendered += renderer.step()
        if renderer.idle:
            assert len(rendered) == len(cells)
            return {one.cell.settings: one for one in rendered}
    raise AssertionError("it hangs")


@pytest.fixture(scope="module")
def sound(tiny_model: Path) -> dict[Settings, np.ndarray]:
    """What the cells look like when nothing goes wrong."""
    renderer = Renderer({"m": tiny_model}, "cpu")
    pictures = {settings: pixels(one) for settings, one in render(renderer, CELLS).items()}
    renderer.close()
    return pictures


def pixels(one: Rendered) -> np.ndarray:
    assert one.image is not None, one.error
    return np.asarray(one.image)


def check_sound(
    rendered: dict[Settings, Rendered], sound: dict[Settings, np.ndarray], but: Settings | None = None
) -> None:
    for settings in CELLS:
        if settings != but:
            assert apart(pixels(rendered[settings]), sound[settings]) <= LEVELS, settings


def too_little_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError, pytest.param(MemoryError, marks=pytest.mark.slow)], ids=["card", "host"]
)
def test_batches_that_do_not_fit_are_made_smaller(
    kind: type,
    error: type[Exception],
    faulty: type[Faulty],
    renderer: Renderer,
    sound: dict[Settings, np.ndarray],
) -> None:
    def before(requests: list[Request]) -> None:
        if isinstance(requests[0], kind) and len(requests) > 1:
            raise error("out of memory")

    faulty.before = staticmethod(before)
    check_sound(render(renderer, CELLS), sound)
    sizes = [rows for asked, rows in faulty.calls if asked is kind]
    assert max(sizes) > 1 and sizes[-1] == 1
    assert len([rows for rows in sizes if rows > 1]) <= 8  # halved down, and never tried again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "how", "failed"),
    [
        (torch.OutOfMemoryError, "together", 0),
        (torch.OutOfMemoryError, "once", 0),
        (torch.OutOfMemoryError, "always", 3),
        (ValueError, "once", 1),
    ],
)
def test_numbers_that_cannot_be_read_back(
    error: type[Exception], how: str, failed: int, faulty: type[Faulty], renderer: Renderer
) -> None:
    """By samplers that go by them."""
    seeds = (1,) if how == "once" else (1, 2, 3)
    cells = [replace(BASE, sampler="DPM adaptive", seed=seed, cfg_scale=1.5, eta=0.0) for seed in seeds]
    sound = {settings: pixels(one) for settings, one in render(renderer, cells).items()}
    left = [error("out of memory" if error is torch.OutOfMemoryError else "torn")]

    def before(requests: list[Request]) -> None:
        if not isinstance(requests[0], Fetch):
            return
        if how == "always" or (how == "together" and len(requests) > 1):
            raise left[0]
        if how == "once" and len(requests) == 1 and left:
            raise left.pop()

    faulty.before = staticmethod(before)
    rendered = render(renderer, cells)
    assert sum(bool(one.error) for one in rendered.values()) == failed and (how != "once" or not left)
    for settings, one in rendered.items():
        assert one.error or apart(pixels(one), sound[settings]) <= ADAPTIVE_LEVELS


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_fails_once_for_want_of_memory_is_made_again(
    kind: type, faulty: type[Faulty], renderer: Renderer, sound: dict[Settings, np.ndarray]
) -> None:
    failures = iter([too_little_memory()])

    def before(requests: list[Request]) -> None:
        if isinstance(requests[0], kind) and len(requests) == 1 and (error := next(failures, None)):
            raise error

    faulty.before = staticmethod(before)
    check_sound(render(renderer, CELLS), sound)
    check_sound(render(renderer, CELLS[:1]) | render(renderer, CELLS[1:]), sound)


@pytest.mark.parametrize("kind", [Predict, Decode])
def test_a_cell_that_never_fits_fails_alone(
    kind: type, faulty: type[Faulty], renderer: Renderer, sound: dict[Settings, np.ndarray]
) -> None:
    """It is the only one of its size."""
    large = replace(BASE, width=128, height=128)

    def before(requests: list[Request]) -> None:
        if isinstance(requests[0], kind) and width(requests[0]) == 16:
            raise too_little_memory()

    faulty.before = staticmethod(before)
    rendered = render(renderer, [*CELLS[:3], large, *CELLS[3:]])
    check_sound(rendered, sound)
    assert "out of memory" in rendered[large].error and rendered[large].image is None
    assert renderer.take_work().again == MOST_TRIES - 1


def width(request: Request) -> int:
    return (request.input if isinstance(request, Predict) else request.latents).shape[-1]  # type: ignore[union-attr]


def breaking(error: Callable[[], Exception], times: int) -> Callable[..., Any]:
    """Euler, whose own arithmetic fails at the third evaluation, so many times."""
    left = [error() for _ in range(times)]

    def sampler(x: torch.Tensor, sigmas: Sequence[float], noise: Any, **options: Any) -> Any:
        for step in range(2):
            yield Denoise(x, sigmas[step], step)
        if left:
            raise left.pop()
        return (yield from SAMPLERS["euler"](x, sigmas, noise, **options))

    return sampler


@pytest.mark.parametrize("times", [1, 2])
def test_a_sampler_that_dies_of_too_little_memory_begins_again(
    times: int, renderer: Renderer, sound: dict[Settings, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLERS, "heun", breaking(too_little_memory, times))
    rendered = render(renderer, CELLS)
    assert renderer.take_work().again == times and not any(one.error for one in rendered.values())
    for settings in CELLS[::2]:
        assert apart(pixels(rendered[settings]), sound[settings]) <= LEVELS


def test_an_exception_in_a_sampler_ends_its_cell_only(
    renderer: Renderer, sound: dict[Settings, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLERS, "euler_ancestral", breaking(lambda: ZeroDivisionError("a step of 0"), 1))
    broken = resolved(asdict(BASE) | {"sampler": "Euler a"}, BUILT_IN)
    rendered = render(renderer, [broken, *CELLS])
    check_sound(rendered, sound)
    assert rendered[broken].error == "ZeroDivisionError: a step of 0" and renderer.take_work().again == 0


def test_an_exception_in_a_shared_recipe_ends_those_that_wait_for_it_and_is_forgotten(
    faulty: type[Faulty], renderer: Renderer, networks: Networks, sound: dict[Settings, np.ndarray]
) -> None:
    """Of the text encoder, for one prompt that two cells have."""
    others = [replace(BASE, prompt="a red dog", seed=seed) for seed in (8, 9)]
    tokenizer = Tokenizer(networks.tokenizer, 77)
    [tokens] = map(tokenizer.filled, tokenizer.chunks([(Piece("a red dog", 1.0),)]))

    def before(requests: list[Request]) -> None:
        if any(isinstance(request, EncodeText) and request.tokens == tokens for request in requests):
            raise RuntimeError("no such kernel")

    faulty.before = staticmethod(before)
    rendered = render(renderer, [others[0], *CELLS, others[1]])
    check_sound(rendered, sound)
    assert [rendered[other].error for other in others] == ["RuntimeError: no such kernel"] * 2
    faulty.before = staticmethod(lambda requests: None)
    assert not any(one.error for one in render(renderer, others).values())


def test_an_exception_in_a_thread_that_draws_ends_its_cell_only(
    renderer: Renderer, sound: dict[Settings, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = TorchNormals.draw

    def drawn(self: Any, *spans: Any) -> Any:
        if self.generator.initial_seed() == 99:
            raise OSError("no entropy")
        return draw(self, *spans)

    monkeypatch.setattr(TorchNormals, "draw", drawn)
    broken = replace(BASE, seed=99)
    rendered = render(renderer, [*CELLS[:2], broken, *CELLS[2:]])
    check_sound(rendered, sound)
    assert rendered[broken].error == "OSError: no entropy"


def spoiling(seed_rows: Callable[[Request], bool], at: int) -> Spoil:
    """Turns the answers to these rows into NaN, from their `at`-th batch on."""
    seen = 0

    def after(requests: list[Request], answers: list[Any]) -> list[Any]:
        nonlocal seen
        hit = [isinstance(request, Predict) and seed_rows(request) for request in requests]
        seen += any(hit)
        return [answer * float("nan") if one and seen >= at else answer for one, answer in zip(hit, answers)]

    return after


def only(size: int) -> Callable[[Request], bool]:
    return lambda request: width(request) == size


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M", "DPM adaptive"])
def test_nan_at_step_7_of_one_cell_fails_it_and_no_other(
    sampler: str, faulty: type[Faulty], renderer: Renderer, sound: dict[Settings, np.ndarray]
) -> None:
    broken = resolved(asdict(BASE) | {"width": 96, "steps": 10, "sampler": sampler}, BUILT_IN)
    faulty.after = staticmethod(spoiling(only(12), 7))
    rendered = render(renderer, [broken, *CELLS])
    check_sound(rendered, sound)
    assert (
        rendered[broken].image is None and rendered[broken].error == "the latents hold NaN or infinite values"
    )
    assert renderer.take_work().again == 0  # nothing is higher than fp32


def test_nan_at_half_precision_is_rendered_again_at_full(faulty: type[Faulty], renderer: Renderer) -> None:
    cells = [replace(BASE, precision="bf16", seed=seed, width=size) for seed in (1, 2) for size in (64, 96)]
    half = spoiling(lambda request: width(request) == 12 and request.weights.precision == "bf16", 3)
    faulty.after = staticmethod(half)
    rendered = render(renderer, cells)
    assert renderer.take_work().again == 2
    full = render(renderer, [replace(settings, precision="fp32") for settings in cells])
    for settings in cells:
        remark = "rendered at fp32, since the latents hold NaN or infinite values"
        assert rendered[settings].remark == (remark if settings.width == 96 else "")
        same = full[replace(settings, precision="fp32")]
        difference = apart(pixels(rendered[settings]), pixels(same))
        assert difference <= LEVELS if settings.width == 96 else difference > LEVELS
        assert rendered[settings].evaluations == 4


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (float("nan"), "the picture holds NaN or infinite values"),
        (float("inf"), "the picture holds NaN or infinite values"),
        (-9.0, "the picture is black all over"),
    ],
)
def test_a_vae_that_overflows_at_half_precision_decodes_at_full(
    spoilt: float, reason: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The VAE itself is made to give such numbers, as those of SDXL do at fp16."""
    [vae] = broken_vaes(monkeypatch, lambda dtype: spoilt if dtype == torch.bfloat16 else None)
    renderer = Renderer({"m": tiny_model}, "cpu")
    [one] = render(renderer, [replace(BASE, precision="bf16")]).values()
    assert one.remark == f"decoded at fp32, since {reason}" and pixels(one).any()
    assert vae == [torch.bfloat16, torch.float32] and renderer.take_work().again == 0


def test_what_stays_black_or_nan_at_full_precision_fails_and_says_so(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [vae] = broken_vaes(monkeypatch, lambda _: -9.0)
    renderer = Renderer({"m": tiny_model}, "cpu")
    [one] = render(renderer, [replace(BASE, precision="bf16")]).values()
    assert (one.error, one.image) == ("the picture is black all over, at fp32 too", None)
    assert vae == [torch.bfloat16, torch.float32, torch.float32] and renderer.take_work().again == 1


def broken_vaes(
    monkeypatch: pytest.MonkeyPatch, spoilt: Callable[[torch.dtype], float | None]
) -> list[list[torch.dtype]]:
    decode, seen = AutoencoderKL.decode, []

    def decoded(self: Any, latents: torch.Tensor, **options: Any) -> Any:
        seen.append(latents.dtype)
        [pictures] = decode(self, latents, **options)
        value = spoilt(latents.dtype)
        return (pictures if value is None else torch.full_like(pictures, value),)

    monkeypatch.setattr(AutoencoderKL, "decode", decoded)
    return [seen]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 2 GiB")],
    ids=str,
)
def test_a_checkpoint_for_which_there_was_no_memory_is_loaded_once_more(
    error: Exception, renderer: Renderer, sound: dict[Settings, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is in the loader itself; the host's allocator has no exception of its own."""
    failures, loaded = iter([error]), []

    def from_pretrained(folder: Path, **options: Any) -> Any:
        loaded.append(folder)
        if failure := next(failures, None):
            raise failure
        return read(folder, **options)

    read = AutoencoderKL.from_pretrained
    monkeypatch.setattr(AutoencoderKL, "from_pretrained", from_pretrained)
    check_sound(render(renderer, CELLS), sound)
    assert len(loaded) == 2


def test_a_device_that_is_lost_ends_the_renderer_and_not_its_cells_one_by_one(
    faulty: type[Faulty], renderer: Renderer
) -> None:
    def before(requests: list[Request]) -> None:
        if isinstance(requests[0], Predict):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    faulty.before = staticmethod(before)
    with pytest.raises(torch.AcceleratorError):
        render(renderer, CELLS)
    assert [asked for asked, _ in faulty.calls].count(Predict) == 1


def test_a_device_that_turns_out_to_be_lost_between_two_calls_ends_the_renderer_too(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card tells of a fault at whatever is asked of it next: here by a sampler."""

    def ask(*_: Any, **__: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        yield

    monkeypatch.setitem(SAMPLERS, BASE.sampler.lower(), ask)
    with pytest.raises(torch.AcceleratorError):
        render(renderer, CELLS)


def test_a_checkpoint_that_cannot_be_read_fails_its_cells_in_words(
    faulty: type[Faulty], renderer: Renderer, sound: dict[Settings, np.ndarray]
) -> None:
    absent = replace(BASE, model="absent")
    rendered = render(renderer, [*CELLS, absent])
    check_sound(rendered, sound)
    assert rendered[absent].error == "checkpoint 'absent' is not on this machine"
