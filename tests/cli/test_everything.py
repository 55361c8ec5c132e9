"""A sweep over everything that lies in a folder of models: what is loaded, and how often."""

import json
import re

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from tests.weights.lora_files import factors, kohya
from tests.weights.original_files import original, original_vae, tiny

JOB = """\
name: everything
prompt: a cat <lora:wash:0.2>
negative_prompt: blurry
width: 64
height: 64
seed: 7
steps: 2
sweep:
  model: [one, two, three]
  vae: [none, fine]
  lora_weight: 0.25-0.75 (+.25)
  negative_embedding: [none, bad-art]
  hypernetwork: [none, pen]
lora: ink
"""


@pytest.fixture
def models(workspace):
    """Three checkpoints, and one file or two of each kind, small but genuine."""
    models, made = workspace / "models", tiny("sd1")
    for folder in ("Lora", "VAE", "hypernetworks", "embeddings"):
        (models / folder).mkdir()
    for number, name in enumerate(("one", "two", "three")):
        state = original(made, torch.float16)
        state["model.diffusion_model.out.2.bias"] += number / 10
        save_file(state, models / "Stable-diffusion" / f"{name}.safetensors")
    save_file(original_vae(tiny("sdxl").vae), models / "VAE" / "fine.safetensors")
    for number, name in enumerate(("ink", "wash")):
        state = kohya(factors(made.unet, 4, number), "lora_unet_", 2.0)
        save_file(state, models / "Lora" / f"{name}.safetensors")
    torch.save({"string_to_param": {"*": torch.randn(2, 64)}}, models / "embeddings" / "bad-art.pt")
    network = {"linear.0.weight": torch.randn(64, 64) / 30, "linear.0.bias": torch.zeros(64)}
    pen = {64: (network, network), "layer_structure": [1, 1], "activation_func": "linear"}
    torch.save(pen, models / "hypernetworks" / "pen.pt")
    (workspace / "job.yaml").write_text(JOB)
    return models


@pytest.mark.slow
def test_all_that_lies_there_is_swept_with_as_few_loads_as_can_be(farm, workspace, models):
    planned = json.loads(farm("plan", "job.yaml", "--json", "--explain").out)
    assert planned["pictures"] == planned["cells"] == 3 * 2 * 3 * 2 * 2 and planned["checkpoint_loads"] == 3
    said = farm("run", "job.yaml", "--inline")
    assert said.code == 0, said.err
    loads = re.search(r"batches \d+% full, ([^;]+);", said.err)[1]
    assert loads == "3 checkpoint loads, 1 VAE load, 2 LoRA loads, 1 hypernetwork load"
    assert f"{planned['rows']:,} rows through the UNet" in said.err
    index = pd.read_csv(workspace / "results" / "everything" / "index.csv")
    assert set(index.status) == {"done"} and index.model_hash.nunique() == 3
    files = [(workspace / "results" / "everything" / name).read_bytes() for name in index.file]
    assert len({content[-4000:] for content in files}) == 72  # pixels, whatever is written before them
    assert farm("run", "job.yaml", "--inline").err.startswith("everything: 72 cells, 72 are there already")


@pytest.mark.slow
def test_a_picture_is_made_anew_when_a_file_that_it_is_made_with_changes(farm, workspace, models):
    text = JOB.replace("[one, two, three]", "[one]").replace("0.25-0.75 (+.25)", "[0.5]")
    (workspace / "job.yaml").write_text(text)
    assert farm("run", "job.yaml", "--inline").code == 0

    def left():
        return re.search(r"(\d+) to render", farm("run", "job.yaml", "--inline").err)[1]

    assert left() == "0"
    ink = models / "Lora" / "wash.safetensors"
    save_file(kohya(factors(tiny("sd1").unet, 4, 9), "lora_unet_", 2.0), ink)
    assert left() == "8"
    torch.save({"string_to_param": {"*": torch.randn(1, 64)}}, models / "embeddings" / "bad-art.pt")
    assert left() == "4"
    save_file(original_vae(tiny("sd2").vae), models / "VAE" / "fine.safetensors")
    assert left() == "4"
    ink.rename(models / "Lora" / "Wash.safetensors")  # a name is a name in any case
    (models / "Stable-diffusion" / "one.safetensors").rename(models / "Stable-diffusion" / "un.safetensors")
    assert farm("run", "job.yaml", "--inline", "--set", "model=un").err.count("0 to render") == 1
    (models / "Stable-diffusion" / "un.yaml").write_text("model: {params: {parameterization: v}}")
    assert farm("plan", "job.yaml", "--set", "model=un").code == 0
    assert "8 to render" in farm("run", "job.yaml", "--inline", "--set", "model=un").err
