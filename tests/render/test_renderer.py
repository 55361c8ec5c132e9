import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

from farm.cell import Cell, Settings
from farm.render.renderer import Rendered, Renderer
from farm.resolving import resolved
from farm.sampling import BUILT_IN, SAMPLERS
from farm.weights.checkpoint import Networks
from tests.render.rendering import LEVELS, Counting, apart, levels_of, render

ASKED = Settings("m", "portrait of beautiful cat", "blurry", "Euler a", 3, 5.0, 17, 64, 64)


def changed(**changes: Any) -> Settings:
    return resolved(asdict(ASKED) | changes, BUILT_IN)


BASE = changed()
LONG = "a ginger cat with green eyes wearing a hat on a blue background, " * 9
MIXED = [
    BASE,
    changed(sampler="Heun", cfg_scale=1.0),
    changed(sampler="DPM++ 2M Karras", steps=5, seed=18),
    changed(sampler="LMS", cfg_scale=12.0, width=96),
    changed(sampler="DPM2", steps=2, prompt=LONG),
    changed(prompt=LONG, negative_prompt="", width=96, cfg_scale=0.0),
    changed(clip_skip=2, negative_prompt=LONG),
]


def finish(renderer: Renderer, cells: list[Settings]) -> list[Rendered]:
    for number, settings in enumerate(cells, 1):
        renderer.submit(Cell(number, (), settings))
    rendered: list[Rendered] = []
    while not renderer.idle:
        rendered += renderer.step()
    return rendered


def test_a_mixed_batch_gives_what_each_cell_gives_alone_in_any_order(networks: Networks) -> None:
    together = render(MIXED, Counting(networks))
    backwards = render(MIXED[::-1], Counting(networks))[::-1]
    alone = [render([settings], Counting(networks))[0] for settings in MIXED]
    assert max(map(apart, together, alone)) <= LEVELS
    assert max(map(apart, backwards, alone)) <= LEVELS
    assert min(apart(one, other) for one, other in zip(alone, [alone[2], *alone[:2]])) > 20
    assert [picture.shape for picture in alone[2:4]] == [(64, 64, 3), (64, 96, 3)]


@pytest.mark.slow
def test_every_picture_of_a_mixed_job_is_what_it_is_alone(tiny_model: Path) -> None:
    job = [
        changed(sampler=row.name, cfg_scale=6.0, steps=steps, width=size, height=size)
        for number, row in enumerate(SAMPLERS)
        for steps, size in zip((3, 5), (96, 64) if number % 2 else (64, 96))
    ]
    together = {one.cell.settings: one for one in finish(Renderer({"m": tiny_model}, "cpu"), job)}
    for settings in reversed(job):
        [alone] = finish(Renderer({"m": tiny_model}, "cpu"), [settings])
        assert alone.image is not None and together[settings].image is not None, alone.error
        assert apart(np.asarray(alone.image), np.asarray(together[settings].image)) <= levels_of(settings), (
            settings
        )


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("said", "cores", "used"), [(None, 2, 1), (None, 1, 1), (None, 8, 3), ("3", 2, 3)], ids=str
)
def test_half_of_the_cores_are_left_for_the_rest(
    said: str | None, cores: int, used: int, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    """Of those that this process may use; never more than torch takes by itself."""
    monkeypatch.setattr("farm.render.device._cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    Renderer({}, "cpu").close()
    assert torch.get_num_threads() == used


def test_evaluations_are_counted(tiny_model: Path) -> None:
    samplers = ["Heun", "DPM adaptive", "diffusers:EulerDiscreteScheduler"]
    cells = [changed(sampler=sampler, steps=3, width=64, height=64, cfg_scale=1.0) for sampler in samplers]
    rendered = finish(Renderer({"m": tiny_model}, "cpu"), cells)
    heun, adaptive, euler = sorted(rendered, key=lambda one: one.cell.number)
    assert (heun.evaluations, euler.evaluations) == (5, 3)
    assert 20 < adaptive.evaluations < 80  # the plan says 80, of a higher scale


def test_loads_and_the_device_are_told_with_the_work(tiny_model: Path, threads: None) -> None:
    """A checkpoint is opened by each cell, and loaded once; of three, two stay, and one is kept beside."""
    renderer = Renderer(dict.fromkeys("mno", tiny_model), "cpu")
    finish(renderer, [changed(model=model, steps=1, seed=seed) for model in "mno" for seed in (1, 2)])
    work = renderer.take_work()
    loads = {kind.model: tally.calls for kind, tally in work.tallies.items() if kind.request == "load"}
    assert loads == {"m": 1, "n": 1, "o": 1} and work.of("open").rows == 6
    assert re.search(rf", {torch.get_num_threads()} threads?$", work.device)
    finish(renderer, [changed(model=model, steps=1, seed=3) for model in "om"])
    work = renderer.take_work()
    assert (work.of("load").calls, work.of("bring back").calls) == (0, 1)


def test_the_same_again_is_the_same_to_the_bit(tiny_model: Path) -> None:
    renderers = [Renderer({"m": tiny_model}, "cpu") for _ in range(2)]
    first, second = (finish(renderer, MIXED[:3]) for renderer in renderers)
    assert [one.cell.number for one in first] == [one.cell.number for one in second]
    for one, other in zip(first, second):
        assert one.image is not None and other.image is not None
        assert one.image.tobytes() == other.image.tobytes() and one.image.mode == "RGB" and one.seconds > 0


def test_a_cell_that_cannot_be_rendered_fails_in_one_line_and_harms_nobody(tiny_model: Path) -> None:
    renderer = Renderer({"m": tiny_model, "empty": tiny_model / "unet"}, "cpu")
    cells = [
        BASE,
        changed(model="absent"),
        changed(clip_skip=99),
        replace(BASE, sampler="Euler z"),
        changed(model="empty"),
        BASE,
    ]
    done = {one.cell.number: one for one in finish(renderer, cells)}
    good = [done[number].image for number in (1, 6)]
    assert good[0] is not None and good[1] is not None and good[0].tobytes() == good[1].tobytes()
    errors = [done[number].error for number in (2, 3, 4, 5)]
    assert errors[0] == "checkpoint 'absent' is not on this machine"
    assert errors[1].startswith("clip_skip 99 is too much for m: its text encoder has")
    assert errors[2] == "sampler 'Euler z' with schedule 'uniform' is not known"
    assert errors[3].startswith(f"checkpoint {tiny_model / 'unet'} cannot be loaded: ")
    assert not any("\n" in error for error in errors)


def test_cells_of_the_same_number_are_kept_apart(tiny_model: Path) -> None:
    renderer = Renderer({"m": tiny_model}, "cpu")
    cells = [Cell(1, (), changed(steps=1, seed=seed)) for seed in (1, 2)]
    for cell in cells:
        renderer.submit(cell)
    rendered = []
    while not renderer.idle:
        rendered += renderer.step()
    assert {one.cell.settings.seed for one in rendered} == {1, 2}


def test_takes_cells_until_its_next_batch_is_sure_to_be_full(tiny_model: Path) -> None:
    renderer = Renderer({"m": tiny_model}, "cpu", rows=4)
    assert renderer.idle and renderer.hungry == 4
    for number in range(6):
        renderer.submit(Cell(number, (), BASE))
    assert not renderer.idle and renderer.hungry == 0


def test_more_checkpoints_than_stay_loaded_are_not_in_flight_together(
    tiny_model: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []

    def load(folder: Path, *_: object) -> Networks:
        loaded.append(folder)
        return networks

    monkeypatch.setattr("farm.render.renderer.load_checkpoint", load)
    folders = {name: Path(name) for name in "abcd"}
    cells = [changed(model=name, seed=seed) for seed in (1, 2, 3) for name in "abcd"]
    by_model = sorted(cells, key=lambda settings: settings.model)
    assert len(finish(Renderer(folders, "cpu"), by_model)) == 12
    assert loaded == [Path(name) for name in "abcd"]


def test_a_text_is_encoded_once_for_all_cells(networks: Networks) -> None:
    cells = [changed(cfg_scale=float(scale), seed=seed, steps=1) for scale in (2, 9) for seed in (1, 2, 3)]
    render([*cells, changed(prompt=LONG, steps=1)], runner := Counting(networks))
    assert runner.rows("EncodeText") == 2 + len(opened_chunks(networks, LONG))


def opened_chunks(networks: Networks, text: str) -> list[int]:
    tokens = networks.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return list(range(0, len(tokens), 75))


@pytest.mark.parity
def test_clip_skip_2_is_what_diffusers_calls_1(networks: Networks, pipeline: StableDiffusionPipeline) -> None:
    pipeline.scheduler = EulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="linspace"
    )
    # without guidance: diffusers skips no layer for the negative prompt, A1111 and we do for both
    theirs = pipeline(
        BASE.prompt, 64, 64, 3, guidance_scale=1.0, generator=torch.Generator().manual_seed(17), clip_skip=1
    ).images[0]
    unguided = changed(sampler="Euler", cfg_scale=1.0)
    skipping, not_skipping = render([replace(unguided, clip_skip=2), unguided], Counting(networks))
    assert apart(skipping, np.asarray(theirs)) <= LEVELS < apart(skipping, not_skipping)
