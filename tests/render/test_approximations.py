"""Approximations beside each other and beside exact pictures, as a sweep over them renders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from farm.cell import Settings
from farm.errors import CellFailed
from farm.render.capacity import Capacity
from farm.render.engine import Engine
from farm.render.recipes import text_to_image
from farm.render.requests import Predict, Weights
from farm.render.runner import Runner
from farm.render.told import Conditioning
from farm.resolving import resolved
from farm.sampling import BUILT_IN
from farm.weights.checkpoint import Networks
from farm.weights.loading import load_checkpoint
from tests.render.rendering import LEVELS, Counting, apart, render

BASE = {
    "model": "m",
    "prompt": "a ginger cat",
    "negative_prompt": "dog",
    "width": 64,
    "height": 64,
    "steps": 6,
}
APPROXIMATIONS: list[dict[str, Any]] = [
    {},
    {"guidance_stop": 0.5},
    {"token_merging_ratio": 0.25},
    {"token_merging_ratio": 0.75},
    {"deepcache_interval": 2},
    {"deepcache_interval": 3, "deepcache_branch": 2},
    {"deepcache_interval": 2, "token_merging_ratio": 0.5, "guidance_stop": 0.7},
    {"deepcache_interval": 3, "negative_guidance_minimum_sigma": 15.0},
    {"deepcache_interval": 2, "prompt": "a [ginger:black:3] cat AND a hat :0.5"},
]


def settings(sampler: str = "Euler", seed: int = 1, **others: Any) -> Settings:
    return resolved(BASE | {"sampler": sampler, "seed": seed, **others}, BUILT_IN)


CELLS = [
    settings(sampler, seed, **approximation)
    for approximation in APPROXIMATIONS
    for sampler, seed in (("Euler", 1), ("Heun", 1), ("Euler a", 2))
]


@pytest.fixture(scope="module")
def together(networks: Networks) -> list[np.ndarray]:
    return render(CELLS, Counting(networks))


@pytest.mark.slow
def test_pictures_are_the_same_alone(together: list[np.ndarray], networks: Networks) -> None:
    for wanted, picture in zip(CELLS, together, strict=True):
        assert apart(render([wanted], Counting(networks))[0], picture) <= LEVELS, wanted


def test_each_changes_the_picture(together: list[np.ndarray]) -> None:
    exact = {(cell.sampler, cell.seed): picture for cell, picture in zip(CELLS[:3], together, strict=False)}
    for wanted, picture in zip(CELLS[3:], together[3:], strict=True):
        assert apart(exact[wanted.sampler, wanted.seed], picture) > LEVELS, wanted


@pytest.mark.slow
def test_exact_pictures_are_the_same_to_the_bit_beside_them(networks: Networks) -> None:
    """In batches of one row nothing but the sharing of first rows is left between them."""
    [alone] = render(CELLS[:1], Counting(networks), rows=1)
    assert np.array_equal(render([*CELLS[3:], CELLS[0]], Counting(networks), rows=1)[-1], alone)


class Bucketed(Counting):
    """Fills every call up to eight rows."""

    def __init__(self, networks: Networks) -> None:
        Runner.__init__(self, lambda *_: networks, torch.device("cpu"), buckets=(8,))
        self.calls = []


@pytest.mark.slow
def test_in_buckets_all_are_the_same_to_the_bit(networks: Networks) -> None:
    cells = CELLS[3::3]
    for wanted, picture in zip(cells, render(cells, Bucketed(networks), rows=8), strict=True):
        assert np.array_equal(render([wanted], Bucketed(networks), rows=8)[0], picture), wanted


def row(seed: int, **kind: Any) -> Predict:
    generator = torch.Generator().manual_seed(seed)
    told = Conditioning(torch.randn(77, 128, generator=generator))
    return Predict(Weights("m"), torch.randn(4, 8, 8, generator=generator), 300.0, told, **kind)


def test_rows_of_a_kind_batch_together_and_no_others() -> None:
    features, smaller = torch.zeros(64, 8, 8), torch.zeros(64, 4, 4)
    kinds: list[dict[str, Any]] = [
        {},
        {"token_merging_ratio": 0.5},
        {"token_merging_ratio": 0.25},
        {"branch": 0},
        {"branch": 1},
        {"branch": 0, "features": features},
        {"branch": 0, "features": smaller},
        {"branch": 0, "token_merging_ratio": 0.5},
    ]
    keys = [row(1, **kind).batch_key for kind in kinds]
    assert len(set(keys)) == len(kinds)
    assert keys == [row(2, **kind).batch_key for kind in kinds]


@torch.inference_mode()
def test_a_full_row_answers_features_that_a_shallow_row_is_answered_with(networks: Networks) -> None:
    runner = Runner(lambda *_: networks, torch.device("cpu"))
    whole = runner.run([row(seed) for seed in (1, 2, 3)])
    full = runner.run([row(seed, branch=1) for seed in (1, 2, 3)])
    assert all(torch.equal(output, plain) for (output, _), plain in zip(full, whole, strict=True))
    asked = [row(seed, branch=1, features=deep) for seed, (_, deep) in zip((1, 2, 3), full, strict=True)]
    shallow = runner.run([asked[2], asked[0]])
    torch.testing.assert_close(shallow, [whole[2], whole[0]], rtol=0, atol=1e-5)
    assert all(answer.dtype == torch.float32 for answer in shallow)


@torch.inference_mode()
def test_in_half_precision_too(tiny_model: Path) -> None:
    """The shallow pass is the full one again, and features are as small as the network's own numbers."""
    halved = load_checkpoint(tiny_model, torch.device("cpu"), torch.bfloat16)
    runner = Runner(lambda *_: halved, torch.device("cpu"))
    kind: dict[str, Any] = {"branch": 1, "token_merging_ratio": 0.5}
    asked = [replace(row(seed, **kind), weights=Weights("m", "bf16")) for seed in (1, 2)]
    told = [Conditioning(one.conditioning.states.to(torch.bfloat16)) for one in asked]
    asked = [replace(one, conditioning=each) for one, each in zip(asked, told, strict=True)]
    full = runner.run(asked)
    shallow = runner.run([replace(one, features=deep) for one, (_, deep) in zip(asked, full, strict=True)])
    assert all(deep.dtype == torch.bfloat16 for _, deep in full)
    assert all(torch.equal(one, output) for one, (output, _) in zip(shallow, full, strict=True))
    assert all(answer.dtype == torch.float32 for answer in shallow)


@pytest.mark.parametrize("rows", [1, 8])
def test_what_a_network_cannot_do_fails_its_own_cells_only(rows: int, networks: Networks) -> None:
    engine = Engine(Counting(networks), Capacity(torch.device("cpu"), rows))
    wanted = {
        "good": settings(),
        "too deep": settings(deepcache_interval=2, deepcache_branch=9),
        "also": settings(deepcache_interval=2, deepcache_branch=9, seed=2),
        "deep": settings(deepcache_interval=2),
    }
    for name, cell in wanted.items():
        engine.submit(name, text_to_image(cell))
    errors: dict[Any, Exception | None] = {}
    while engine.in_flight:
        errors |= {finished.name: finished.error for finished in engine.step()}
    assert errors["good"] is None and errors["deep"] is None
    for name in ("too deep", "also"):
        assert isinstance(errors[name], CellFailed) and "deepcache_branch: 9 is too much" in str(errors[name])


def test_first_rows_are_shared_by_rows_of_a_kind_only(networks: Networks) -> None:
    """Whatever the scale and the interval; of one step there are no other rows."""
    cells = [
        settings(cfg_scale=scale, **approximation)
        for scale in (3.0, 5.0, 9.0)
        for approximation in (
            {},
            {"token_merging_ratio": 0.5},
            {"deepcache_interval": 2},
            {"deepcache_interval": 3},
        )
    ]
    render([replace(cell, steps=1) for cell in cells], runner := Counting(networks))
    assert runner.rows("Predict") == 2 * 3
