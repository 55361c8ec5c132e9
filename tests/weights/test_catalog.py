import subprocess
import sys
from pathlib import Path

import pytest

from farm.weights.catalog import Entry, find_models, other_names
from farm.weights.places import Kind


def make(models: Path, name: str, content: str = "weights") -> Path:
    folder = models / "Stable-diffusion" / name
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "model.safetensors").write_text(content)
    (folder / "README.md").write_text("about it")
    return folder


def lay(root: Path, *files: str) -> None:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(kind: Kind, *folders: Path) -> list[str]:
    return list(find_models(folders).of(kind))


def test_folders_of_diffusers_are_named_by_their_place(tmp_path: Path) -> None:
    for name in ("cats", "anime/soft", "anime/hard"):
        make(tmp_path, name)
    (tmp_path / "Stable-diffusion" / "notes").mkdir()
    found = find_models([tmp_path / "absent", tmp_path]).of(Kind.CHECKPOINT)
    assert list(found) == ["anime/hard", "anime/soft", "cats"]
    cats = found["cats"]
    assert cats.path == tmp_path / "Stable-diffusion" / "cats" and cats.size == 42 + len("weights")


def test_what_lies_inside_of_a_folder_of_diffusers_is_no_checkpoint_of_its_own(tmp_path: Path) -> None:
    make(tmp_path, "cats")
    assert names(Kind.CHECKPOINT, tmp_path) == ["cats"]


def test_a_checkpoint_right_in_the_folder_is_named_by_it(tmp_path: Path) -> None:
    folder = make(tmp_path, ".")
    [(name, found)] = find_models([tmp_path]).of(Kind.CHECKPOINT).items()
    assert name == found.name == "Stable-diffusion" and found.path == folder


def test_earlier_folders_win(tmp_path: Path) -> None:
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    make(own, "cats"), make(shipped, "cats"), make(shipped, "dogs")
    found = find_models([own, shipped]).of(Kind.CHECKPOINT)
    assert {name: own in one.path.parents for name, one in found.items()} == {"cats": True, "dogs": False}


A1111 = (
    "models/Stable-diffusion/v1-5-pruned.safetensors",
    "models/Stable-diffusion/anime/Soft Mix.CKPT",
    "models/Stable-diffusion/v1-5-pruned.vae.pt",
    "models/Stable-diffusion/v1-5-pruned.png",
    "models/Stable-diffusion/v1-5-pruned.yaml",
    "models/VAE/kl-f8.ckpt",
    "models/Lora/style/ink.safetensors",
    "models/LyCORIS/shape.safetensors",
    "models/hypernetworks/pen.pt",
    "models/ESRGAN/4x.pth",
    "models/aesthetic_embeddings/not-here.txt",
    "embeddings/bad-hands.pt",
    "embeddings/shown.png",
    "extensions/stable-diffusion-webui-aesthetic-gradients/aesthetic_embeddings/fantasy.pt",
)

COMFYUI = (
    "models/checkpoints/v1-5-pruned.safetensors",
    "models/vae/kl-f8.safetensors",
    "models/loras/ink.safetensors",
    "models/embeddings/bad-hands.pt",
    "models/hypernetworks/pen.pt",
    "models/upscale_models/4x.pth",
    "models/clip_vision/other.safetensors",
)


@pytest.mark.parametrize("inside", ["", "models"])
def test_a_tree_of_a1111_is_taken_as_it_is(inside: str, tmp_path: Path) -> None:
    lay(tmp_path, *A1111)
    found = find_models([tmp_path / inside])
    assert {kind: list(entries) for kind, entries in found.entries.items()} == {
        Kind.CHECKPOINT: ["v1-5-pruned", "anime/Soft Mix"],
        Kind.VAE: ["v1-5-pruned.vae", "kl-f8"],
        Kind.LORA: ["style/ink", "shape"],
        Kind.EMBEDDING: ["bad-hands", "shown"],
        Kind.HYPERNETWORK: ["pen"],
        Kind.AESTHETIC_EMBEDDING: ["fantasy"],
        Kind.UPSCALER: ["4x"],
    }
    assert found.vaes_beside() == {"v1-5-pruned": "v1-5-pruned.vae"}


@pytest.mark.parametrize("inside", ["", "models"])
def test_a_tree_of_comfyui_is_taken_as_it_is(inside: str, tmp_path: Path) -> None:
    lay(tmp_path, *COMFYUI)
    found = find_models([tmp_path / inside])
    assert {str(kind): list(entries) for kind, entries in found.entries.items() if entries} == {
        "checkpoint": ["v1-5-pruned"], "vae": ["kl-f8"], "lora": ["ink"], "embedding": ["bad-hands"],
        "hypernetwork": ["pen"], "upscaler": ["4x"],
    }  # fmt: skip


@pytest.mark.parametrize("folder", ["stable-diffusion", "STABLE-DIFFUSION", "Checkpoints"])
def test_the_case_of_folders_does_not_matter(folder: str, tmp_path: Path) -> None:
    lay(tmp_path, f"{folder}/a.safetensors")
    assert names(Kind.CHECKPOINT, tmp_path) == ["a"]


def test_files_that_differ_in_their_suffix_alone_are_told_apart(tmp_path: Path) -> None:
    lay(tmp_path, *(f"Stable-diffusion/{name}" for name in ("a.ckpt", "a.safetensors", "b.ckpt", "x/a.ckpt")))
    assert names(Kind.CHECKPOINT, tmp_path) == ["a.ckpt", "a.safetensors", "b", "x/a"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    lay(tmp_path, "far/a.safetensors", "models/Stable-diffusion/b.safetensors")
    root = tmp_path / "models" / "Stable-diffusion"
    (root / "far").symlink_to(tmp_path / "far")
    (root / "round").symlink_to(root)
    (root / "c.safetensors").symlink_to(tmp_path / "far" / "a.safetensors")
    (root / "nowhere.safetensors").symlink_to(tmp_path / "gone")
    assert names(Kind.CHECKPOINT, tmp_path) == ["b", "c", "far/a"]


def test_a_folder_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    lay(tmp_path, "models/Stable-diffusion/a.safetensors")
    assert names(Kind.CHECKPOINT, tmp_path, tmp_path / "models", tmp_path) == ["a"]


def test_a_vae_s_folder_is_a_vae(tmp_path: Path) -> None:
    lay(tmp_path, "VAE/fine/diffusion_pytorch_model.safetensors", "VAE/other/config.json")
    (tmp_path / "VAE" / "fine" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    assert names(Kind.VAE, tmp_path) == ["fine"]


def test_an_entry_answers_to_what_people_know_it_by() -> None:
    entry = Entry(Kind.CHECKPOINT, "sd/v1-5", Path("sd/v1-5.ckpt"), "sd/v1-5.ckpt")
    assert other_names(entry, "") == ("v1-5", "sd/v1-5.ckpt", "v1-5.ckpt")
    whole = "cc6cb27103" + "0" * 54
    assert other_names(entry, whole)[3:] == ("cc6cb27103", whole, "sd/v1-5.ckpt [cc6cb27103]")


def test_the_catalog_imports_no_heavy_library() -> None:
    heavy = {"torch", "ray", "diffusers", "transformers", "pandas", "numpy"}
    code = f"import sys, farm.weights.catalog, farm.weights.looking; print(*sys.modules.keys() & {heavy})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
