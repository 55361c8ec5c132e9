from itertools import product

import numpy as np
import pytest
import torch

from farm.cell import Settings
from farm.render.guidance import Condition, Guidance, Origin, conditions_for
from farm.render.parameterization import Parameterization
from farm.render.requests import Denoise, Predict, Share, Weights
from farm.weights.checkpoint import Networks
from tests.render.oracles import stable_diffusion
from tests.render.rendering import LEVELS, Counting, apart, render

STATES = {name: torch.full((1, 1), value) for name, value in [("prompt", 1.0), ("negative", 2.0)]}


def conditions(cfg_scale: float) -> tuple[Condition, ...]:
    return conditions_for(cfg_scale, ("prompt", STATES["prompt"]), ("negative", STATES["negative"]))


@pytest.mark.parametrize(
    ("cfg_scale", "rows"), [(1, {"prompt"}), (0, {"negative"}), (7.5, {"prompt", "negative"})]
)
def test_rows_of_no_weight_are_not_computed(cfg_scale: float, rows: set[str]) -> None:
    assert {condition.key for condition in conditions(cfg_scale)} == rows


def guidance(cfg_scale: float, x: torch.Tensor) -> Guidance:
    model: Parameterization = stable_diffusion()
    return Guidance(Weights("m"), model, conditions(cfg_scale), Origin("origin", x))


@pytest.mark.parametrize("cfg_scale", [0, 0.5, 1, 2, 7.5, 30])
def test_combines_as_the_formula_says(cfg_scale: float) -> None:
    x, sigma = torch.randn(4, 2, 2, dtype=torch.float64), 3.5
    outputs = {name: torch.randn(4, 2, 2, dtype=torch.float64) for name in STATES}
    asking = guidance(cfg_scale, x=torch.zeros(1)).denoise(Denoise(x, sigma, 3))
    rows = asking.send(None)
    answers = tuple(outputs["prompt" if row.conditioning is STATES["prompt"] else "negative"] for row in rows)
    with pytest.raises(StopIteration) as end:
        asking.send(answers)
    eps = outputs["negative"] + cfg_scale * (outputs["prompt"] - outputs["negative"])
    torch.testing.assert_close(end.value.value, x - sigma * eps)
    torch.testing.assert_close(rows[0].input, x / (sigma**2 + 1) ** 0.5)


def test_only_rows_at_the_origin_are_shared() -> None:
    x = torch.randn(4, 2, 2)
    first = guidance(7, x).denoise(Denoise(x, 14.0, 0)).send(None)
    later = guidance(7, x).denoise(Denoise(x.clone(), 14.0, 0)).send(None)
    assert all(isinstance(row, Share) for row in first) and all(isinstance(row, Predict) for row in later)
    assert first[0].key == guidance(3, x).denoise(Denoise(x, 14.0, 0)).send(None)[0].key
    assert first[0].key != first[1].key


def sweep(samplers: tuple[str, ...], scales: tuple[float, ...], seeds: tuple[int, ...]) -> list[Settings]:
    return [
        Settings("m", "a ginger cat", "dog", sampler, 2, scale, seed, 64, 64)
        for sampler, scale, seed in product(samplers, scales, seeds)
    ]


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_first_rows_are_computed_once_for_all_scales_samplers_and_schedules(
    seeds: tuple[int, ...], networks: Networks
) -> None:
    samplers = ("Euler a", "Euler", "LMS Karras", "DPM++ 2M")
    render(sweep(samplers, (3, 7.5, 20), seeds), runner := Counting(networks))
    second_rows = len(samplers) * 3 * len(seeds) * 2
    assert runner.rows("Predict") == 2 * len(seeds) + second_rows


@pytest.mark.parametrize(("scale", "rows"), [(1, 2), (0, 2), (5, 4)])
def test_scales_0_and_1_ask_the_network_half_as_often(scale: float, rows: int, networks: Networks) -> None:
    render(sweep(("Euler",), (scale,), (1,)), runner := Counting(networks))
    assert runner.rows("Predict") == rows


def test_sharing_changes_no_picture(networks: Networks) -> None:
    cells = sweep(("Euler a", "Heun"), (3, 9), (5,))
    together = render(cells, Counting(networks))
    alone = [render([cell], Counting(networks))[0] for cell in cells]
    assert max(map(apart, together, alone)) <= LEVELS


def test_sharing_changes_no_bit_where_the_batches_are_alike(networks: Networks) -> None:
    """With batches of one row, sharing is all that differs between a cell among others and the same alone."""
    cells = sweep(("Euler a", "Heun"), (3, 9), (5,))
    together = render(cells, Counting(networks), rows=1)
    for cell, picture in zip(cells, together, strict=True):
        assert np.array_equal(render([cell], Counting(networks), rows=1)[0], picture)
