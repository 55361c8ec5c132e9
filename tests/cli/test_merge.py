import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from farm.weights.hashes import Hashes
from farm.weights.loading import load_checkpoint
from tests.weights.original_files import original, original_vae, tiny, write
from tests.weights.test_merging import changed, lora_for

pytestmark = pytest.mark.slow  # there are many of them, on networks of several kinds

JOB = """\
prompt: a ginger cat
negative_prompt: blurry
width: 64
height: 64
seed: 7
steps: 3
"""


@pytest.fixture
def models(workspace):
    """Checkpoints of one family, and one of another."""
    folder = workspace / "models" / "Stable-diffusion"
    first = original(tiny("sd1"))
    for seed, name in enumerate("abc"):
        save_file(changed(first, seed), folder / f"{name}.safetensors")
    write(tiny("sdxl"), folder / "xl.safetensors")
    return folder


@pytest.fixture
def lora(workspace, models):
    folder = workspace / "models" / "Lora"
    folder.mkdir()
    return lora_for(load_checkpoint(models / "a.safetensors", torch.device("cpu"), torch.float32),
                    folder / "ink.safetensors")[0]  # fmt: skip


def metadata(path):
    with safe_open(path, "pt") as file:
        found = dict(file.metadata())
    return {key: json.loads(value) if value.startswith("{") else value for key, value in found.items()}


def cells_of(workspace, name):
    """The rows of its index, each with its picture."""
    with (workspace / "results" / name / "index.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        row | {"pixels": np.asarray(Image.open(workspace / "results" / name / row["file"]))} for row in rows
    ]


def apart(one, other):
    return int(np.abs(one["pixels"].astype(int) - other["pixels"].astype(int)).max())


def test_a_merge_is_written(farm, workspace, models):
    said = farm("merge", "a", "B.safetensors", "--weight", ".25", "-o", "ab.safetensors")
    assert (said.code, said.out, said.err) == (0, "ab.safetensors\n", "")
    parts = [load_file(models / f"{name}.safetensors") for name in "ab"]
    for name, tensor in load_file("ab.safetensors").items():
        a, b = (part[name] for part in parts)
        wanted = (0.75 * a + 0.25 * b).half() if a.is_floating_point() else a
        torch.testing.assert_close(tensor, wanted)


def test_what_it_was_made_of_stands_in_it(farm, workspace, models):
    assert farm("merge", "a", "b", "c", "--precision", "fp32", "-o", models / "abc.safetensors").code == 0
    hashes = [Hashes().of(models / f"{name}.safetensors") for name in "abc"]
    said = metadata(models / "abc.safetensors")
    assert (said["format"], said["merge"]) == ("pt", "a + 0.3 (b - c)")
    recipe = said["sd_merge_recipe"]
    assert [recipe[f"{rank}_model_hash"] for rank in ("primary", "secondary", "tertiary")] == hashes
    assert (recipe["interp_method"], recipe["multiplier"]) == ("Add difference", 0.3)
    assert (recipe["save_as_half"], recipe["bake_in_vae"], recipe["loras"]) == (False, "None", [])
    assert [one["name"] for one in said["sd_merge_models"].values()] == [
        f"{name}.safetensors" for name in "abc"
    ]
    assert farm("merge", "abc", "a", "-o", models / "more.safetensors").code == 0
    more = metadata(models / "more.safetensors")["sd_merge_models"]
    abc = Hashes().of(models / "abc.safetensors")
    assert set(more) == {*hashes, abc} and more[abc]["sd_merge_recipe"] == recipe
    listed = json.loads(farm("models", "checkpoint", "--json").out)
    assert {row["name"]: row["fault"] for row in listed}["more"] == ""


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("a", "gone"), 2, "A B C: 'gone' is not known"),
        (("a", "0.5 a + 0.5 b"), 2, "is a merge; a merge is made of files"),
        (("a",), 2, "one checkpoint alone is merged with nothing"),
        (("a", "b", "c", "a"), 2, "A B C: a merge is made of two checkpoints, or of three, not of 4"),
        (("a", "b", "--method", "add difference"), 2, "--method: add difference takes 3 checkpoints, not 2"),
        (("a", "b", "--method", "sigmoid"), 2, "--method: the method 'sigmoid' is not known"),
        (("a", "b", "--weight", "2"), 2, "--weight: '2' is not allowed"),
        (("a", "b", "--precision", "fp8"), 2, "--precision: 'fp8' is not known (fp16, bf16, fp32)"),
        (("a", "b", "--vae", "none"), 2, "--vae: 'none' is not a VAE"),
        (("a", "b", "--vae", "gone"), 2, "--vae: 'gone' is not known"),
        (("a", "b", "--lora", "gone:1"), 2, "--lora: 'gone' is not known"),
        (("a", "xl"), 1, "it is sdxl, and a.safetensors is sd1"),
        (("a", "tiny-cats"), 1, "it is a folder of diffusers, and merges are made of single files"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(arguments, code, what, farm, workspace, models):
    said = farm("merge", *arguments, "-o", "out.safetensors")
    assert said.code == code and what in said.err and said.err.count("\n") == 1
    assert not (workspace / "out.safetensors").exists()


def test_a_file_that_is_there_or_no_safetensors_is_refused(farm, workspace, models):
    (workspace / "out.safetensors").write_bytes(b"mine")
    said = farm("merge", "a", "b", "-o", "out.safetensors")
    assert said.code == 1 and "out.safetensors: it is there already, and is not overwritten" in said.err
    assert (workspace / "out.safetensors").read_bytes() == b"mine"
    said = farm("merge", "a", "b", "-o", "out.ckpt")
    assert said.code == 2 and "--output: 'out.ckpt' does not end in .safetensors" in said.err


def test_the_yaml_of_the_first_goes_along(farm, workspace, models):
    (models / "a.yaml").write_text("model: {params: {parameterization: v}}", encoding="utf-8")
    (workspace / "taken.yaml").write_text("mine", encoding="utf-8")
    assert farm("merge", "a", "b", "-o", "ab.safetensors").code == 0
    assert (workspace / "ab.yaml").read_text("utf-8") == (models / "a.yaml").read_text("utf-8")
    said = farm("merge", "a", "b", "-o", "taken.safetensors")
    assert said.code == 1 and "taken.yaml: it is there already" in said.err
    assert not (workspace / "taken.safetensors").exists()


def test_a_vae_is_baked_in(farm, workspace, models):
    (workspace / "models" / "VAE").mkdir()
    vae = original_vae(tiny("sdxl").vae)
    save_file(vae, workspace / "models" / "VAE" / "fine.safetensors")
    assert farm("merge", "a", "b", "--vae", "fine", "--precision", "fp32", "-o", "ab.safetensors").code == 0
    found = load_file("ab.safetensors")
    assert all(torch.equal(found[f"first_stage_model.{name}"], tensor) for name, tensor in vae.items())
    assert metadata("ab.safetensors")["sd_merge_recipe"]["bake_in_vae"] == "fine.safetensors"


def test_a_sweep_of_merges_renders_what_their_files_render(farm, workspace, models):
    assert (
        farm("merge", "a", "b", "--weight", ".5", "--precision", "fp32", "-o", models / "ab.safetensors").code
        == 0
    )
    (workspace / "sweep.yaml").write_text(
        f"{JOB}model: {{merge: [a, b]}}\nsweep: {{merge_weight: 0-1 (+.5)}}\n", encoding="utf-8"
    )
    (workspace / "files.yaml").write_text(f"{JOB}sweep: {{model: [a, ab, b]}}\n", encoding="utf-8")
    said = farm("run", "sweep.yaml", "files.yaml", "--inline")
    assert said.code == 0, said.err
    assert "sweep: 3 rendered, 0 failed" in said.err and "3 checkpoint loads" in said.err
    made, files = cells_of(workspace, "sweep"), cells_of(workspace, "files")
    assert [row["model"] for row in made] == ["1 a + 0 b", "0.5 a + 0.5 b", "0 a + 1 b"]
    assert [apart(one, other) for one, other in zip(made, files)] == [0, 0, 0]
    assert apart(made[0], made[1]) > 2 and apart(made[1], made[2]) > 2
    hashes = [row["model_hash"] for row in made + files]
    assert len(set(hashes)) == 6
    assert "all of it is there already" in farm("plan", "sweep.yaml").out


def test_keys_follow_contents_and_not_names(farm, workspace, models):
    (workspace / "one.yaml").write_text(f"{JOB}model: 0.5 a + 0.5 b\n", encoding="utf-8")
    assert farm("run", "one.yaml", "--inline").code == 0
    (models / "a.safetensors").rename(models / "d.safetensors")
    (workspace / "one.yaml").write_text(f"{JOB}model: 0.5 d + 0.5 b\n", encoding="utf-8")
    assert "all of it is there already" not in farm("plan", "one.yaml").out  # nobody has read it yet
    farm("models", "--hash")
    assert "all of it is there already" in farm("plan", "one.yaml").out
    (models / "d.yaml").write_text("model: {params: {parameterization: v}}", encoding="utf-8")
    assert "time: " in farm("plan", "one.yaml").out
    said = farm("run", "one.yaml", "--inline")
    assert said.code == 0 and "1 cell, 1 to render" in said.err


def test_a_baked_lora_is_as_its_tag(farm, workspace, models, lora):
    assert (
        farm(
            "merge", "a", "--lora", "ink:.5:.8", "--precision", "fp32", "-o", models / "inked.safetensors"
        ).code
        == 0
    )
    [said] = metadata(models / "inked.safetensors")["sd_merge_recipe"]["loras"]
    assert said == {"name": "ink", "hash": Hashes().of(lora), "text": 0.5, "unet": 0.8}
    (workspace / "ink.yaml").write_text(
        f"{JOB}sweep:\n  m:\n  - {{title: tag, model: a, prompt: 'a ginger cat <lora:ink:0.5:0.8>'}}\n"
        "  - {title: baked, model: inked}\n  - {title: plain, model: a}\n",
        encoding="utf-8",
    )
    said = farm("run", "ink.yaml", "--inline")
    assert said.code == 0, said.err
    tag, baked, plain = cells_of(workspace, "ink")
    assert apart(tag, baked) <= 2 and apart(baked, plain) > 20


def test_what_of_a_lora_has_no_use_is_said(farm, workspace, models, lora):
    more = load_file(lora) | {"lora_unet_nowhere.lora_down.weight": torch.ones(1, 1)}
    save_file(more, lora.with_name("more.safetensors"))
    said = farm("merge", "a", "--lora", "more", "-o", "more.safetensors")
    assert said.code == 0 and said.err.count("\n") == 1
    assert "more.safetensors: 1 of its tensors have no use, lora_unet_nowhere.lora_down.weight" in said.err
    [one] = metadata("more.safetensors")["sd_merge_recipe"]["loras"]
    assert (one["text"], one["unet"]) == (1, 1)


def test_plans_and_checks_find_mistakes(farm, workspace, models):
    (workspace / "one.yaml").write_text(f"{JOB}model: {{merge: [a, xl]}}\n", encoding="utf-8")
    for command in ("check", "plan", "run"):
        said = farm(command, "one.yaml")
        assert said.code == 2 and said.err.count("\n") == 1
        assert "one.yaml:7: model: '0.7 a + 0.3 xl' cannot be used; " in said.err
        assert "xl.safetensors: it is sdxl, and a.safetensors is sd1" in said.err


def test_prompts_are_cut_for_a_merge(farm, models):
    for model in ("0.5 a + 0.5 b", "a", "tiny-cats"):
        said = farm("prompt", "a cat", "--model", model)
        assert (said.code, said.err) == (0, "")


def test_what_takes_long_says_how_far_it_is(farm, models, monkeypatch):
    monkeypatch.setattr("farm.cli.merge.SILENT", -1)
    said = farm("merge", "a", "b", "-o", "ab.safetensors")
    assert said.out == "ab.safetensors\n"
    assert set(said.err.splitlines()) == {"ab.safetensors: 0.0 of 0.0 GB"}


def test_options_change_merges(farm, workspace, models):
    options = ("--set", "model=.5 a + .5 b", "--set", "merge_weight=0-1 (+.25)", "--json")
    assert json.loads(farm("plan", "small.yaml", *options).out)["axes"]["merge_weight"] == [
        "0",
        "0.25",
        "0.5",
        "0.75",
        "1",
    ]


@pytest.mark.slow
def test_workers_of_ray_make_merges(farm, workspace, models):
    (workspace / "one.yaml").write_text(f"{JOB}model: {{merge: [a, b]}}\n", encoding="utf-8")
    said = farm("run", "one.yaml", "--workers", "1")
    assert said.code == 0 and "1 rendered, 0 failed" in said.err
