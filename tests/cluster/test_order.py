"""One job with two checkpoints, two sizes and prompts of one, two and three chunks, in either order."""

import io
import shutil
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import farm.render.renderer as renderer_module
from farm.cell import Outcome
from farm.cluster.coordinator import Done
from farm.cluster.inline import InlineFarm
from farm.explaining import explained
from farm.job import Vocabulary, load_job
from farm.ordering import Order
from farm.plan import compile_job
from farm.render.renderer import Renderer
from farm.render.requests import Predict
from farm.render.runner import Runner
from farm.weights.loading import load_checkpoint
from farm.work import total
from tests.render.rendering import LEVELS

JOB = """\
prompt: a ginger cat
negative_prompt: blurry
height: 64
seed: 7
sampler: Euler
sweep:
  steps: [2, 3]
  prompt:
    - a ginger cat
    - a ginger cat BREAK on a blue background
    - a ginger cat BREAK on a blue background BREAK wearing a hat
  width: [64, 96]
  model: [cats, others]
"""
STATES = 77
"""Of a chunk, its marks included."""


@pytest.fixture(scope="module")
def checkpoints(tiny_model, tmp_path_factory):
    """The small model, and another one: its weights are bent a little."""
    other = tmp_path_factory.mktemp("models") / "others"
    shutil.copytree(tiny_model, other)
    file = other / "unet" / "diffusion_pytorch_model.safetensors"
    chance = torch.Generator().manual_seed(0)
    weights = {
        name: (weight * (1 + 0.02 * torch.randn(weight.shape, generator=chance))).to(weight.dtype)
        for name, weight in load_file(file).items()
    }
    save_file(weights, file, metadata={"format": "pt"})
    return {"cats": tiny_model, "others": other}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_text(JOB, encoding="utf-8")
    vocabulary = Vocabulary(models={"cats": (), "others": ()}, plugins={})
    return compile_job(load_job(path, vocabulary)).keyed({"cats": "1" * 64, "others": "2" * 64})


@pytest.fixture(scope="module")
def alone(plan, checkpoints):
    """The picture of each cell, rendered by itself."""
    renderer = Renderer(checkpoints, "cpu")
    pictures = {}
    for cell in plan.cells:
        renderer.submit(cell)
        while not renderer.idle:
            pictures |= {one.cell.number: np.asarray(one.image, int) for one in renderer.step()}
    renderer.close()
    return pictures


class Watched(Renderer):
    """A renderer that notes the cells that it is given, in their order."""

    def __init__(self, submitted, *arguments):
        super().__init__(*arguments)
        self.submitted = submitted

    def submit(self, cell, *arguments):
        self.submitted.append(cell.number)
        super().submit(cell, *arguments)


@pytest.mark.parametrize("order", Order)
def test_a_mixed_job_loads_little_and_is_rendered_as_explained(plan, checkpoints, alone, order, monkeypatch):
    loaded, submitted, computed = [], [], Counter()

    def load(folder, *arguments):
        loaded.append(folder)
        return load_checkpoint(folder, *arguments)

    class Counting(Runner):
        def run(self, requests):
            if isinstance(requests[0], Predict):
                row = requests[0]
                _, height, width = row.input.shape
                chunks = row.conditioning.states.shape[0] // STATES
                computed[row.weights.model, 8 * width, 8 * height, chunks] += len(requests)
            return super().run(requests)

    # a card with room for one: each change is a load
    monkeypatch.setattr("farm.render.checkpoints.LOADED_AT_ONCE", 1)
    monkeypatch.setattr(renderer_module, "load_checkpoint", load)
    monkeypatch.setattr(renderer_module, "Runner", Counting)
    ordered = plan.in_order(order)
    told = explained(ordered, loaded_at_once=1)
    with InlineFarm(checkpoints, (), "cpu", partial(Watched, submitted)) as inline:
        events = list(inline.render(ordered.cells, ordered.wave_of))
    outcomes = [event for event in events if isinstance(event, Outcome)]
    work = total(event.work for event in events if isinstance(event, Done))

    assert {outcome.cell.number for outcome in outcomes} == set(alone) and len(outcomes) == len(plan.cells)
    for outcome in outcomes:
        picture = np.asarray(Image.open(io.BytesIO(outcome.png)), int)
        assert abs(picture - alone[outcome.cell.number]).max() <= LEVELS
    assert submitted == [cell.number for cell in ordered.cells]
    assert work.of("load").calls + work.of("bring back").calls == told.loads
    assert told.loads == {Order.FAST: 2, Order.COARSE: 3}[order]
    assert len(loaded) == work.of("load").calls == 2  # the others come back from the host
    told_rows = Counter()
    for stretch in told.stretches:
        for one in stretch.batches:
            told_rows[stretch.model, one.width, one.height, one.chunks] += one.rows
    assert computed == told_rows and len(computed) == 2 * 2 * 3
    counted = Counter()
    for kind, tally in work.tallies.items():
        if kind.request == "predict":
            counted[kind.model, kind.width, kind.height, kind.tokens // STATES] += tally.rows
    assert counted == told_rows and work.of("predict").rows == ordered.rows()
    assert (work.shared_rows, work.of("open").rows) == (ordered.shared_rows(), len(plan.cells))
    assert 0.1 < work.occupancy <= 1  # few cells of many kinds
    assert [(stretch.wave, stretch.model) for stretch in told.stretches] == {
        Order.FAST: [(1, "cats"), (1, "others")],
        Order.COARSE: [(1, "cats"), (1, "others"), (3, "others"), (3, "cats")],
    }[order]
