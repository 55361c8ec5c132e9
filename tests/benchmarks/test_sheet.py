import json
import sys
from typing import Any

import pytest
import torch

from benchmarks.sheet.__main__ import Measurement, options_of
from benchmarks.sheet.cells import JANUARY, sheet
from benchmarks.sheet.farms import KINDS
from benchmarks.sheet.networks import SDXL, VAE, decoding_flops, tiny_cats, unet_flops
from benchmarks.sheet.pipelines import THEIRS, Pipeline
from benchmarks.sheet.report import (
    COMPILED,
    COMPILED_FARM,
    FARM,
    PER_CELL,
    SEEDS,
    UTILISATION,
    WORKERS,
    aims,
    lines,
)
from farm.costs import evaluations
from farm.render.capacity import CPU_ROWS
from tests.render.rendering import LEVELS

SMALL = [
    "--device",
    "cpu",
    "--scales",
    "2",
    "--steps",
    "3",
    "--seeds",
    "2",
    "--curve",
    "1",
    "2",
    "--largest-batch",
    str(CPU_ROWS),
]


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """A report as it is printed; its ratios go where the tests' own log does."""
    report = json.loads(json.dumps(Measurement(options_of([*SMALL, *arguments])).report()))
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *lines(report), ""]))
    return report


@pytest.mark.slow
def test_both_sides_render_the_sheet_that_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    report = measured(capsys, "--samplers", "Euler, Heun, DPM++ 2M Karras", "--workers", "0", "--every-cell")
    farm, per_cell, seeds = (report["sides"][name] for name in (FARM, PER_CELL, SEEDS))
    assert set(report["sides"]) == {FARM, PER_CELL, SEEDS}
    assert (report["cells"], report["largest_batch_of_equal_settings"]) == (6, 1)
    assert farm["rows"] == report["planned_rows"] == 2 * 2 * (3 + 5 + 3) - report["planned_shared_rows"]
    assert farm["evaluations"] == per_cell["evaluations"] == seeds["evaluations"] / 2 == 22
    assert farm["calls"] * farm["occupancy"] * CPU_ROWS == pytest.approx(farm["rows"], rel=0.01)
    assert farm["rows_a_call"] == pytest.approx(farm["occupancy"] * CPU_ROWS, rel=0.01)
    assert 0 < farm["occupancy"] <= 1
    assert [side["images"] for side in (farm, per_cell, seeds)] == [6, 6, 12]


@pytest.mark.slow
def test_its_figures_hang_together(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--samplers", "Euler, DPM adaptive", "--scales", "1", "--seeds", "1", "--workers", "0"
    report = measured(capsys, *arguments)
    farm, per_cell = (report["sides"][name] for name in (FARM, PER_CELL))
    spent = farm["seconds_by_request"]
    assert set(spent) == {*KINDS, "waiting for noise", "samplers, guidance, loop"}
    assert sum(spent.values()) == pytest.approx(farm["seconds"], rel=0.05) and spent["predict"] > 0
    ratio = per_cell["seconds"] / farm["seconds"]
    assert farm["times_faster_than"][PER_CELL] == pytest.approx(ratio, rel=0.05, abs=0.02)
    used = farm["rows_a_second"] * report["tflop_a_row"] / report["matmul_tflops"]
    assert farm["model_flops_utilisation"] == pytest.approx(used, abs=0.01)
    assert report["largest_pixel_difference"][PER_CELL] <= LEVELS  # of Euler
    assert set(report["unet_rows_a_second_by_rows_a_call"]["eager"]) == {"1", "2"}
    assert [aim["whole_sheet"] for aim in report["aims"]] == [False, False]
    assert report["aims"][0]["measured"] == farm["times_faster_than"][PER_CELL]
    assert report["aims"][0]["met"] is None  # which such a small sheet cannot tell


@pytest.mark.slow
@pytest.mark.parametrize("size", ["sd15", "sdxl"])
def test_the_sizes_for_a_gpu_run_through_as_toys(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = measured(capsys, "--size", size, "--toy", "--samplers", "Euler", "--seeds", "1", "--curve", "1")
    assert report["sides"][FARM]["rows"] == report["planned_rows"] and report["toy"]
    assert report["largest_pixel_difference"][PER_CELL] <= LEVELS


@pytest.mark.card
@pytest.mark.parametrize("size", ["sd15", "sdxl"])
def test_they_run_through_on_a_card(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--size", size, "--toy", "--samplers", "Euler, DPM2 a", "--curve", "1", "--device", "cuda"
    report = measured(capsys, *arguments)
    farm = report["sides"][FARM]
    assert farm["rows"] == report["planned_rows"]
    assert 0 < farm["seconds_by_request"]["predict"] < farm["seconds"]


@pytest.mark.slow
def test_two_workers_on_ray_make_the_same_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    report = measured(capsys, "--samplers", "Euler, Heun", "--seeds", "1", "--workers", "2")
    workers = report["sides"][WORKERS]
    assert (workers["images"], workers["evaluations"]) == (4, report["sides"][FARM]["evaluations"])
    first_rows = 2  # which each worker has to make for itself, if it has any of the cells
    assert report["planned_rows"] <= workers["rows"] <= report["planned_rows"] + first_rows
    assert report["largest_pixel_difference"][WORKERS] <= LEVELS
    assert report["aims"][1]["measured"] == workers["times_faster_than"][PER_CELL]


@pytest.mark.slow
def test_work_is_that_of_the_real_networks() -> None:
    """As a FLOP counter has them of the published models, SDXL's with its sizes and pooled text."""
    assert unet_flops({"cross_attention_dim": 768, "attention_head_dim": 8}, 512) == pytest.approx(
        0.803e12, rel=1e-3
    )
    assert unet_flops(SDXL, 1024) == pytest.approx(6.761e12, rel=1e-3)
    assert [decoding_flops(VAE, pixels) / 1e12 for pixels in (512, 1024)] == pytest.approx(
        [2.515, 10.47], rel=1e-3
    )


@pytest.mark.slow
def test_stand_ins_and_schedulers_ask_as_often_as_the_farm() -> None:
    """At the article's steps; what chooses its steps asks as often as the farm was seen to."""
    networks = tiny_cats(torch.device("cpu"))
    pipeline = Pipeline(networks)
    for cell in sheet(JANUARY, 1, 40, 64).cells:
        if cell.settings.sampler in THEIRS:
            scheduler = pipeline.scheduler(cell.settings.sampler, cell.settings.schedule)
            scheduler.set_timesteps(40)
            assert len(scheduler.timesteps) == evaluations(cell.settings), cell.settings.sampler


def test_a_call_of_diffusers_has_one_cfg_scale() -> None:
    """Why its batches of equal settings are batches over seeds."""
    pipeline = Pipeline(tiny_cats(torch.device("cpu")))
    [cell, *_] = sheet(["Euler"], 1, 1, 64).cells
    with pytest.raises(RuntimeError, match="Boolean value of Tensor"):
        pipeline.pipeline([cell.settings.prompt] * 2, guidance_scale=torch.tensor([2.0, 7.0]))
    assert len(pipeline(cell.settings, 1, [1, 2]).images) == 2


def test_aims_are_those_of_the_networks_and_the_device() -> None:
    found = {FARM: {UTILISATION: 0.41, "times_faster_than": {PER_CELL: 4.9}}}
    told = aims(found, "sd15", "cuda", whole=True)
    assert [(aim["measured"], aim["met"]) for aim in told] == [(0.41, True), (4.9, False), (None, None)]
    found[COMPILED_FARM] = {UTILISATION: 0.39, "times_faster_than": {PER_CELL: 5.1, COMPILED: 2.3}}
    told = aims(found, "sd15", "cuda", whole=True)
    assert [(aim["measured"], aim["met"]) for aim in told] == [(0.41, True), (5.1, True), (2.3, True)]
    assert [aim["met"] for aim in aims(found, "sd15", "cuda", whole=False)] == [None, None, None]
    assert aims(found, "sd15", "cpu", whole=True) == []
