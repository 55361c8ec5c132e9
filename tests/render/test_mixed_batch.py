"""Every sampler, every schedule and several CFG scales in one mixed batch: each picture is what it is alone.

Padded to one bucket, the networks see the same shapes whatever else is in flight, and pictures are equal to
the bit; unpadded, matrix products of other shapes round differently in float32.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle

import numpy as np
import pytest
import torch

from farm.cell import Settings
from farm.render.requests import Predict, Weights
from farm.render.runner import Runner
from farm.render.told import Conditioning
from farm.resolving import resolved
from farm.sampling import BUILT_IN, Sampler
from farm.weights.checkpoint import Networks
from tests.render.rendering import Counting, apart, levels_of, render

BUCKET = 4
SCALES = (1.0, 4.0, 9.0)
STEPS = {"Restart": 20, "DPM++ 3M SDE": 5}
"""The least with which they do all that they can; 3 is enough for others."""

of_samplers = pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])], ids=str
)


class Padded(Counting):
    def __init__(self, networks: Networks) -> None:
        Runner.__init__(self, lambda *_: networks, torch.device("cpu"), buckets=(BUCKET,))
        self.calls = []


def sheet(whole: bool) -> Iterator[Settings]:
    """Every sampler with every schedule, or with its own schedule, and one with every one; scales in turn."""
    scales = cycle(SCALES)
    for row in BUILT_IN.samplers:
        every_one = row.takes_schedules and (whole or row.name == "Euler")
        for schedule in BUILT_IN.schedules if every_one else (row.schedule,):
            yield settings_of(row, schedule, next(scales))


def settings_of(row: Sampler, schedule: str, scale: float) -> Settings:
    texts = {"model": "m", "prompt": "a ginger cat", "negative_prompt": "dog", "seed": 5}
    size = {"width": 64, "height": 64, "steps": STEPS.get(row.name, 3) if schedule == row.schedule else 3}
    return resolved(
        {**texts, **size, "sampler": row.name, "schedule": schedule, "cfg_scale": scale}, BUILT_IN
    )


def differences(pictures: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> list[int]:
    return [apart(one, other) for one, other in zip(pictures, others, strict=True)]


@pytest.mark.slow
@of_samplers
def test_the_sheet_of_all_samplers_and_schedules_is_its_cells(whole: bool, networks: Networks) -> None:
    cells, padded = list(sheet(whole)), Padded(networks)
    alone = [render([settings], padded, rows=BUCKET)[0] for settings in cells]
    assert len(np.unique(np.stack(alone), axis=0)) > len(cells) // 2  # they are not all one picture
    levels = differences(render(cells, padded, rows=BUCKET), alone)
    assert [settings for settings, off in zip(cells, levels) if off] == []
    levels = differences(render(cells, Counting(networks)), alone)
    assert [(settings, off) for settings, off in zip(cells, levels) if off > levels_of(settings)] == []


@pytest.mark.parametrize("rows", [1, 3, 4, 11])
@torch.inference_mode()
def test_a_row_is_the_same_in_any_padded_call(rows: int, networks: Networks) -> None:
    runner, generator = Padded(networks), torch.Generator().manual_seed(0)
    channels = networks.unet.config.cross_attention_dim
    asked = [
        Predict(
            Weights("m"),
            torch.randn(4, 8, 8, generator=generator),
            97.0 * row,
            Conditioning(torch.randn(77, channels, generator=generator)),
        )
        for row in range(rows)
    ]
    together = runner.run(list(asked))
    assert len(together) == rows
    assert all(torch.equal(answer, runner.run([row])[0]) for row, answer in zip(asked, together))
