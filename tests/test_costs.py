from dataclasses import replace
from itertools import product

import pytest
import torch

from farm.cell import Cell, Settings
from farm.cluster.tasks import cost, tasks_of
from farm.costs import evaluations, first_pass, first_rows, rows
from farm.layout import Layout
from farm.plan import Plan
from farm.render.guidance import conditions_for
from farm.sampling import SAMPLERS
from farm.weights.checkpoint import Networks, load_checkpoint
from tests.render.rendering import Counting, render

BASE = Settings("m", "a cat", "blurry", "Euler", 4, 5.0, 1, 64, 64)
CPU = torch.device("cpu")


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 7.0])
def test_an_evaluation_has_the_rows_that_guidance_computes(scale: float) -> None:
    settings = replace(BASE, cfg_scale=scale)
    computed = conditions_for(scale, ("prompt", None), ("negative", None))  # type: ignore[arg-type]
    assert rows(settings) == evaluations(settings) * len(computed)
    assert len(first_rows(settings)) == len(computed)


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.0])
def test_plan_queue_and_engine_count_the_same_rows(tiny_model, scale: float) -> None:
    networks: Networks = load_checkpoint(tiny_model, CPU, torch.float32)
    for row in SAMPLERS:
        settings = replace(BASE, sampler=row.name, steps=2, cfg_scale=scale)
        cell = Cell(1, (), settings, key="k")
        render([settings], runner := Counting(networks))
        assert runner.rows("Predict") == rows(settings) == Plan("p", (), Layout(), (cell,)).rows()
        assert cost(cell) == runner.rows("Predict") * 64 * 64


def test_sharing_is_computed_as_planned(tiny_model) -> None:
    wanted = [
        replace(BASE, sampler=sampler, cfg_scale=scale)
        for sampler, scale in product(("Euler", "Heun", "LMS"), (0.0, 1.0, 5.0))
    ]
    cells = tuple(Cell(number, (), settings) for number, settings in enumerate(wanted))
    render(wanted, runner := Counting(load_checkpoint(tiny_model, CPU, torch.float32)))
    assert runner.rows("Predict") == Plan("p", (), Layout(), cells).rows()


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        ({"sampler": "Heun"}, True),
        ({"cfg_scale": 1.0}, True),
        ({"steps": 9}, True),
        ({"seed": 2}, False),
        ({"width": 128}, False),
        ({"height": 128}, False),
        ({"prompt": "a dog"}, False),
        ({"negative_prompt": ""}, False),
        ({"clip_skip": 2}, False),
        ({"precision": "fp16"}, False),
        ({"model": "n"}, False),
    ],
)
def test_what_shares_a_first_pass_is_leased_together(change, shares: bool) -> None:
    changed = replace(BASE, **change)
    assert (first_pass(changed) == first_pass(BASE)) == shares
    one, other = tasks_of([Cell(1, (), BASE, key="a"), Cell(2, (), changed, key="b")])
    assert (one.group == other.group) == shares
