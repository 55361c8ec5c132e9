import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from farm.cli import hashing
from farm.cli.jobs import load_plans, look_around
from tests.weights.original_files import tiny, write
from tests.weights.test_recognition import DOWN

SHIPPED = {"tiny-ink": "lora", "tiny-duchess": "embedding", "tiny-night": "hypernetwork"}


@pytest.fixture
def tree(workspace):
    """A folder of models as another program has it."""
    models = workspace / "webui" / "models"
    write(tiny("sd1"), models / "Stable-diffusion" / "anime" / "soft.safetensors", torch.float16)
    (models / "Stable-diffusion" / "torn.ckpt").write_bytes(b"PK")
    (models / "Lora").mkdir()
    words = {"ss_tag_frequency": json.dumps({"a": {"ink": 3}}), "ss_sd_model_name": "v1-5"}
    save_file({DOWN: torch.zeros(4, 768)}, models / "Lora" / "ink.safetensors", metadata=words)
    save_file({DOWN: torch.zeros(4, 768)}, models / "Stable-diffusion" / "lost.safetensors")
    return workspace / "webui"


def rows_of(said):
    return {row["name"]: row for row in json.loads(said.out)}


def test_a_folder_is_listed_by_what_its_files_are(farm, tree):
    rows = rows_of(farm("models", "--models", tree, "--json"))
    assert list(rows) == ["tiny-cats", "lost", "torn", "anime/soft", "ink", *SHIPPED]
    seen = {
        name: (row["kind"], row["family"], row["fault"]) for name, row in rows.items() if name not in SHIPPED
    }
    assert seen == {
        "tiny-cats": ("checkpoint", "sd1", ""),
        "anime/soft": ("checkpoint", "sd1", ""),
        "lost": ("lora", "sd1", "it lies among files of the kind checkpoint"),
        "torn": ("checkpoint", "", "it is neither a safetensors file nor one of torch.save"),
        "ink": ("lora", "sd1", ""),
    }
    assert (rows["ink"]["trigger_words"], rows["ink"]["base_model"]) == (["ink"], "v1-5")
    assert rows["tiny-cats"]["bytes"] > 1e6 and rows["tiny-cats"]["path"].endswith(
        "Stable-diffusion/tiny-cats"
    )


def test_one_kind_alone(farm, tree):
    assert list(rows_of(farm("models", "lora", "--models", tree, "--json"))) == ["ink", "tiny-ink"]
    assert list(rows_of(farm("models", "--models", tree, "--json", "lora"))) == ["ink", "tiny-ink"]
    said = farm("models", "vae")
    assert (said.code, said.out) == (0, "") and said.err.startswith("there are none in ")


def test_what_ships_for_tiny_cats_is_listed_in_any_folder(farm):
    rows = rows_of(farm("models", "--json"))
    assert list(rows) == ["tiny-cats", *SHIPPED]
    for name, kind in SHIPPED.items():
        assert (rows[name]["kind"], rows[name]["base_model"], rows[name]["fault"]) == (kind, "tiny-cats", "")


def test_the_variable_names_folders_too(farm, tree, workspace, monkeypatch):
    monkeypatch.setenv("FARM_MODELS", f"{tree}:{workspace / 'models'}")
    assert "anime/soft" in rows_of(farm("models", "--json"))
    assert farm("check", "small.yaml", "--set", "model=soft").code == 0
    assert "hats" not in farm("prompt", "<lora:ink:1> a cat").err


def test_a_folder_that_is_not_there_is_a_mistake(farm):
    said = farm("models", "--models", "nowhere")
    assert (said.code, said.err) == (2, "--models: 'nowhere' is not a folder\n")


def test_hashes_are_those_of_a1111(farm, tree):
    assert rows_of(farm("models", "lora", "--json", "--models", tree))["ink"]["hash"] == ""
    first = rows_of(farm("models", "lora", "--json", "--models", tree, "--hash"))["ink"]
    assert len(first["hash"]) == 10 and first["sha256"].startswith(first["hash"])
    assert rows_of(farm("models", "--json", "--models", tree))["ink"] == first


@pytest.mark.parametrize("name", ["soft", "soft.safetensors", "anime/soft.safetensors", "ANIME/SOFT"])
def test_a_job_names_a_checkpoint_in_many_ways(name, farm, tree):
    assert farm("check", "small.yaml", "--models", tree, "--set", f"model={name}").code == 0


def test_a_job_names_a_checkpoint_by_its_hash(farm, tree):
    title = "anime/soft.safetensors [0123456789]"
    assert farm("check", "small.yaml", "--models", tree, "--set", f"model={title}").code == 0
    whole = rows_of(farm("models", "checkpoint", "--models", tree, "--hash", "--json"))["anime/soft"][
        "sha256"
    ]
    for part in (whole, whole[:6], whole[:10].upper(), f"anime/soft.safetensors [{whole[:10]}]"):
        assert farm("check", "small.yaml", "--models", tree, "--set", f"model={part}").code == 0
    for other in (title, "0123456789", whole[:5]):
        said = farm("check", "small.yaml", "--models", tree, "--set", f"model={other}")
        assert said.code == 2 and "is not known" in said.err


def test_two_that_fit_are_listed(farm, tree):
    models = tree / "models" / "Stable-diffusion"
    (models / "b").mkdir()
    (models / "b" / "soft.safetensors").symlink_to(models / "anime" / "soft.safetensors")
    said = farm("check", "small.yaml", "--models", tree, "--set", "model=soft")
    assert said.code == 2 and "'soft' may be any of 'anime/soft', 'b/soft'" in said.err
    whole = rows_of(farm("models", "checkpoint", "--models", tree, "--hash", "--json"))["b/soft"]["sha256"]
    said = farm("check", "small.yaml", "--models", tree, "--set", f"model={whole[:8]}")
    assert said.code == 2 and "may be any of 'anime/soft', 'b/soft'" in said.err


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("torn", "torn.ckpt: it is neither a safetensors file nor one of torch.save"),
        ("lost", "lost.safetensors: it is a LoRA, and no checkpoint"),
    ],
)
def test_a_file_that_cannot_be_used_concerns_only_who_names_it(name, why, farm, tree):
    assert farm("check", "small.yaml", "--models", tree).code == 0
    said = farm("check", "small.yaml", "--models", tree, "--set", f"model={name}")
    assert said.code == 2 and len(said.err.splitlines()) == 1
    assert said.err.startswith(f"--set model={name}: model: {name!r} cannot be used; ") and why in said.err


@pytest.mark.parametrize(
    ("axis", "why", "fails"),
    [
        (
            "model: [tiny-cats, torn]",
            "model: 'torn' cannot be used; {}/Stable-diffusion/torn.ckpt: it is n",
            4,
        ),
        (
            "prompt: [a cat, a cat <lora:bad:1>]",
            "prompt: 'bad' cannot be used; {}/Lora/bad.pt: it is empty",
            4,
        ),
    ],
)
def test_cells_of_a_file_that_cannot_be_used_fail_and_the_others_do_not(axis, why, fails, farm, tree):
    (tree / "models" / "Lora" / "bad.pt").touch()
    job = tree.parent / "small.yaml"
    job.write_text(job.read_text().replace("sweep:", f"sweep:\n  {axis}"))
    told = f"small.yaml:9: warning: {why.format(tree / 'models')}"
    checked = farm("check", "small.yaml", "--models", tree)
    assert checked.code == 0 and checked.out.splitlines()[1].startswith(told)
    assert checked.out.splitlines()[1].endswith(f"; {fails} cells with it fail")
    said = farm("run", "small.yaml", "--models", tree, "--inline")
    assert said.code == 1 and said.err.startswith(told)
    assert f"small: {8 - fails} rendered, {fails} failed" in said.err


def test_a_broken_folder_concerns_only_who_names_it(farm, workspace):
    broken = workspace / "models" / "Stable-diffusion" / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text("{")
    rows = rows_of(farm("models", "--json"))
    assert rows["tiny-cats"]["fault"] == ""
    assert rows["broken"]["fault"].startswith("model_index.json cannot be read: JSONDecodeError: ")
    assert farm("check", "small.yaml").code == 0
    for command in ("plan", "check", "run"):
        said = farm(command, "small.yaml", "--set", "model=broken")
        assert said.code == 2
        assert said.err.startswith(
            f"--set model=broken: model: 'broken' cannot be used; {broken}: model_index"
        )
        assert len(said.err.splitlines()) == 1


def test_a_checkpoint_that_does_not_tell_what_it_predicts_is_asked_about(farm, workspace):
    models = workspace / "models" / "Stable-diffusion"
    write(tiny("sd2"), models / "two.safetensors", torch.float16)
    said = farm("check", "small.yaml", "--set", "model=two")
    assert (
        said.code == 2 and "'two' does not tell what it predicts; write prediction_type: epsilon" in said.err
    )
    assert farm("check", "small.yaml", "--set", "model=two", "--set", "prediction_type=v").code == 0
    (models / "two.yaml").write_text("model: {params: {parameterization: v}}")
    assert farm("check", "small.yaml", "--set", "model=two").code == 0


def test_a_pickle_is_made_safe(farm, workspace):
    weights = {"a": torch.arange(3.0)}
    torch.save({"state_dict": weights}, workspace / "a.ckpt")
    said = farm("models", "convert", "a.ckpt")
    assert (said.code, said.out, said.err) == (0, "a.safetensors\n", "")
    assert torch.equal(load_file(workspace / "a.safetensors")["a"], weights["a"])
    said = farm("models", "convert", "a.ckpt")
    assert said.code == 1 and said.err == "farm: a.safetensors: it is there already, and is not overwritten\n"
    assert farm("models", "convert", "a.ckpt", "-o", "b.safetensors").code == 0


def test_a_pickle_that_would_run_something_is_refused_by_its_name(farm, workspace):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"state_dict": Evil()}, workspace / "a.ckpt")
    said = farm("models", "convert", "a.ckpt")
    assert said.code == 1 and "print" in said.err and said.out == "" and "run" not in said.out
    assert not (workspace / "a.safetensors").exists() and len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "prompt"),
    [
        ("lora=ink", "a ginger cat on a blue background <lora:ink:1>"),
        ("lora=INK.safetensors", "a ginger cat on a blue background <lora:ink:1>"),
        (
            "loras=ink:0.5 + ink.safetensors:2",
            "a ginger cat on a blue background <lora:ink:0.5> <lora:ink:2>",
        ),
        ("lora=none", "a ginger cat on a blue background"),
    ],
)
def test_a_job_names_loras_by_settings(change, prompt, farm, tree):
    written = tree.parent / "results" / "small" / "job.yaml"
    assert farm("check", "small.yaml", "--models", tree, "--set", change).code == 0
    planned = json.loads(farm("plan", "small.yaml", "--models", tree, "--set", change, "--json").out)
    assert planned["warnings"] == [] and not written.exists()
    plan = load_plans([tree.parent / "small.yaml"], [change], look_around(None, [tree]))[0]
    assert {cell.settings.prompt for cell in plan.cells} == {prompt}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("lora=inc", "lora: 'inc' is not known; did you mean 'ink'? (farm models lora lists them)"),
        ("loras=ink:much", "loras: 'much' is not a number or a range; a number from -10 to 10"),
        ("loras=ink:nan", "loras: 'nan' is not a number or a range; a number from -10 to 10"),
        ("loras=ink:11", "loras: 11 is not allowed; a number from -10 to 10"),
        ("loras=all:1", "loras: 'all' in 'all:1' is not a LoRA; name:weight + name:weight"),
        ("loras=ink + none", "loras: 'none' in 'ink + none' is not a LoRA; name:weight + name:weight"),
        ("loras=inc:1", "loras: 'inc' is not known; did you mean 'ink'? (farm models lora lists them)"),
        ("lora_weight=99", "lora_weight: 99 is not allowed; a number from -10 to 10"),
        ("hypernetwork=pen", "hypernetwork: 'pen' is not known (farm models hypernetwork lists them)"),
        ("vae=fine", "vae: 'fine' is not known (farm models vae lists them)"),
    ],
)
def test_what_is_not_there_is_a_mistake(change, why, farm, tree):
    said = farm("check", "small.yaml", "--models", tree, "--set", change)
    assert (said.code, said.err) == (2, f"--set {change}: {why}\n")


def test_tags_that_could_be_two_or_are_no_lora_are_mistakes(farm, tree):
    loras = tree / "models" / "Lora"
    (loras / "b").mkdir()
    (loras / "b" / "x.safetensors").symlink_to(loras / "ink.safetensors")
    (loras / "x.ckpt").symlink_to(tree / "models" / "Stable-diffusion" / "anime" / "soft.safetensors")
    for tag, why in (
        ("x.safetensors", ""),
        ("X", "'X' may be any of 'x', 'b/x'"),
        ("x", f"'x' cannot be used; {loras / 'x.ckpt'}: it is a checkpoint, and not a LoRA"),
    ):
        said = farm("check", "small.yaml", "--models", tree, "--set", f"prompt=a cat <lora:{tag}:1>")
        assert said.code == (2 if why else 0) and why in said.err


def test_an_axis_of_all_loras(farm, tree):
    job = tree.parent / "small.yaml"
    job.write_text(job.read_text().replace("sweep:", "sweep:\n  lora: all\n  lora_weight: [0, 1]"))
    [plan] = load_plans([job], [], look_around(None, [tree]))
    prompt = "a ginger cat on a blue background"
    tags = ("", " <lora:ink:1>", " <lora:tiny-ink:1>")
    assert {cell.settings.prompt for cell in plan.cells} == {f"{prompt}{tag}" for tag in tags}
    assert [value.title for value in plan.axes[0].values] == ["none", "ink", "tiny-ink"]


def test_hashing_what_is_large_is_told(farm, tree, monkeypatch):
    monkeypatch.setattr(hashing, "SLOW", 1_000_000)
    said = farm("models", "checkpoint", "--models", tree, "--hash", "--json")
    soft = tree / "models" / "Stable-diffusion" / "anime" / "soft.safetensors"
    assert f"reading {soft} once for its hash (0.0 GB)" in said.err.splitlines()
    assert farm("models", "checkpoint", "--models", tree, "--hash", "--json").err == ""
