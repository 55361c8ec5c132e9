"""What can go wrong while pictures are encoded, and what must not."""

import copy
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from farm.cell import Settings
from farm.render.admission import MOST_TRIES
from farm.render.placement import Rung
from farm.render.renderer import Rendered, Renderer
from farm.render.requests import EncodeImage, Request, Weights
from farm.render.runner import Runner
from farm.weights.checkpoint import Networks
from tests.render.rendering import LEVELS, Counting, apart, pixels_for
from tests.render.rendering import render as render_with
from tests.render.scarce import OnDevice, Scarce
from tests.render.test_faults import BASE, Faulty, faulty, pixels, render, too_little_memory  # noqa: F401
from tests.render.test_placement import limit_for, own  # noqa: F401

pytestmark = pytest.mark.timeout(120)

CPU = torch.device("cpu")


def picture_file(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(file, "PNG")
    return file.getvalue()


PICTURES = {hashlib.sha256(one).hexdigest(): one for one in map(picture_file, ("teal", "gold", "gray"))}
CELLS = [replace(BASE, init_image=key, denoising_strength=0.5) for key in PICTURES]
LARGE = [replace(CELLS[0], width=128, height=128, seed=seed) for seed in (1, 2)]


@pytest.fixture
def renderer(faulty: type[Faulty], tiny_model: Path) -> Iterator[Renderer]:  # noqa: F811
    made = Renderer({"m": tiny_model}, "cpu", pictures=pixels_for([*CELLS, *LARGE], PICTURES))
    yield made
    made.close()


@pytest.fixture(scope="module")
def sound(tiny_model: Path) -> dict[Settings, np.ndarray]:
    renderer = Renderer({"m": tiny_model}, "cpu", pictures=pixels_for(CELLS, PICTURES))
    pictures = {settings: pixels(one) for settings, one in render(renderer, CELLS).items()}
    renderer.close()
    return pictures


def check_sound(
    rendered: dict[Settings, Rendered], sound: dict[Settings, np.ndarray], but: Settings | None = None
) -> None:
    assert len({picture.tobytes() for picture in sound.values()}) == len(CELLS)
    for settings in CELLS:
        if settings != but:
            assert apart(pixels(rendered[settings]), sound[settings]) <= LEVELS, settings


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_in_a_bucket_latents_do_not_depend_on_the_neighbours(rows: int, networks: Networks) -> None:
    generator = torch.Generator().manual_seed(rows)

    def some(count: int) -> list[Request]:
        shape = (count, 64, 48, 3)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return [EncodeImage(Weights("m"), one) for one in pixels]

    runner, batch, others = Runner(lambda *_: networks, CPU, buckets=(8,)), some(8), some(8)
    with torch.inference_mode():
        together = runner.run(batch)[:rows]
        assert together[0].shape == (4, 8, 6)
        assert all(map(torch.equal, together, runner.run(batch[:rows])))
        assert all(map(torch.equal, together, runner.run([*batch[:rows], *others[rows:]])))


def test_pictures_that_do_not_fit_together_are_encoded_one_by_one(
    faulty: type[Faulty],  # noqa: F811
    renderer: Renderer,
    sound: dict[Settings, np.ndarray],
) -> None:
    def before(requests: list[Request]) -> None:
        if isinstance(requests[0], EncodeImage) and len(requests) > 1:
            raise too_little_memory()

    faulty.before = staticmethod(before)
    check_sound(render(renderer, CELLS), sound)
    sizes = [rows for asked, rows in faulty.calls if asked is EncodeImage]
    assert sizes[0] > 1 and sizes.count(1) == len(CELLS)


def test_an_encoding_that_fails_once_for_want_of_memory_is_made_again(
    faulty: type[Faulty],  # noqa: F811
    renderer: Renderer,
    sound: dict[Settings, np.ndarray],
) -> None:
    failures = iter([too_little_memory()])

    def before(requests: list[Request]) -> None:
        if isinstance(requests[0], EncodeImage) and len(requests) == 1 and (error := next(failures, None)):
            raise error

    faulty.before = staticmethod(before)
    check_sound(render(renderer, CELLS[:1]) | render(renderer, CELLS[1:]), sound)
    assert next(failures, None) is None


def test_a_picture_that_never_fits_fails_the_cells_that_start_from_it(
    faulty: type[Faulty],  # noqa: F811
    renderer: Renderer,
    sound: dict[Settings, np.ndarray],
) -> None:
    def before(requests: list[Request]) -> None:
        if isinstance(requests[0], EncodeImage) and requests[0].kind.width == 128:
            raise too_little_memory()

    faulty.before = staticmethod(before)
    rendered = render(renderer, [*LARGE, *CELLS])
    check_sound(rendered, sound)
    for one in LARGE:
        assert rendered[one].error.startswith("it does not fit into the memory of cpu, even alone")
    assert 0 < renderer.take_work().again <= 2 * (MOST_TRIES - 1)


def broken_encoders(monkeypatch: pytest.MonkeyPatch, dtypes: Sequence[torch.dtype]) -> list[torch.dtype]:
    """The VAE gives numbers that are none for what begins dark, in these types; what types there were."""
    encode, seen = AutoencoderKL.encode, []

    def encoded(self: Any, pictures: torch.Tensor, **options: Any) -> Any:
        seen.append(pictures.dtype)
        answer = encode(self, pictures, **options)
        dark = pictures[:, 0, 0, 0] < -0.9
        if pictures.dtype in dtypes:
            answer.latent_dist.mean[dark] = float("nan")
        return answer

    monkeypatch.setattr(AutoencoderKL, "encode", encoded)
    return seen


def test_a_vae_that_overflows_at_half_precision_encodes_at_full(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teal has no red; the others do not know of its trouble."""
    seen = broken_encoders(monkeypatch, [torch.bfloat16])
    cells = [replace(one, precision="bf16") for one in CELLS]
    rendered = render(renderer, cells)
    dark, *others = cells
    assert rendered[dark].remark == "encoded at fp32, since the encoded picture holds NaN or infinite values"
    assert pixels(rendered[dark]).any() and not any(rendered[one].remark for one in others)
    assert seen == [torch.bfloat16, torch.float32]


def test_what_stays_nan_at_full_precision_fails_and_says_so(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, sound: dict[Settings, np.ndarray]
) -> None:
    broken_encoders(monkeypatch, [torch.bfloat16, torch.float32])
    rendered = render(renderer, CELLS)
    assert rendered[CELLS[0]].error == "the encoded picture holds NaN or infinite values"
    check_sound(rendered, sound, but=CELLS[0])
    half = replace(CELLS[0], precision="bf16")
    [again] = render(renderer, [half]).values()
    assert again.error == "the encoded picture holds NaN or infinite values, at fp32 too"


@pytest.mark.parametrize("rung", Rung)
def test_the_vae_encodes_wherever_the_weights_lie(
    rung: Rung,
    own: Networks,  # noqa: F811
    networks: Networks,
) -> None:
    wanted = render_with(CELLS, Counting(copy.copy(networks)), pictures=PICTURES)
    memory = Scarce(limit_for(rung, own))
    with OnDevice(memory):
        again = render_with(CELLS, runner := Counting(own, memory=memory), pictures=PICTURES)
    assert all(map(np.array_equal, again, wanted)) and runner.rows("EncodeImage") == len(CELLS)
