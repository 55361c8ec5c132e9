import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from farm.weights.catalog import Hashes, find_checkpoints, hash_all


def make(models: Path, name: str, content: str = "weights") -> Path:
    folder = models / "Stable-diffusion" / name
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "model.safetensors").write_text(content)
    (folder / "README.md").write_text("about it")
    return folder


def test_checkpoints_are_named_by_their_place(tmp_path: Path) -> None:
    for name in ("cats", "anime/soft", "anime/hard"):
        make(tmp_path, name)
    (tmp_path / "Stable-diffusion" / "notes").mkdir()
    found = find_checkpoints([tmp_path / "absent", tmp_path])
    assert list(found) == ["anime/hard", "anime/soft", "cats"]
    cats = found["cats"]
    assert (cats.name, cats.pipeline) == ("cats", "StableDiffusionPipeline")
    assert cats.path == tmp_path / "Stable-diffusion" / "cats" and cats.size == 42 + len("weights")


def test_earlier_folders_win(tmp_path: Path) -> None:
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    make(own, "cats"), make(shipped, "cats"), make(shipped, "dogs")
    (shipped / "Stable-diffusion" / "cats" / "model_index.json").write_text("of no concern")
    found = find_checkpoints([own, shipped])
    assert {name: own in one.path.parents for name, one in found.items()} == {"cats": True, "dogs": False}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "cannot be read: JSONDecodeError: "),
        (b"{", "cannot be read: JSONDecodeError: "),
        (b"\xff\xfe", "cannot be read: UnicodeDecodeError: "),
        (b"[" * 100_000, "cannot be read: RecursionError: "),
        (b"[]", "is not that of a diffusers folder: it names no _class_name"),
        (b"{}", "is not that of a diffusers folder: it names no _class_name"),
        (b"null", "is not that of a diffusers folder: it names no _class_name"),
        (b'{"_class_name": [1]}', "is not that of a diffusers folder: it names no _class_name"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_broken_checkpoint_has_its_fault_and_hides_no_other(
    content: bytes, fault: str, tmp_path: Path
) -> None:
    make(tmp_path, "cats"), make(tmp_path, "dogs")
    (tmp_path / "Stable-diffusion" / "cats" / "model_index.json").write_bytes(content)
    found = find_checkpoints([tmp_path])
    assert list(found) == ["cats", "dogs"]
    assert found["cats"].fault.startswith(f"model_index.json {fault}")
    assert "\n" not in found["cats"].fault and found["cats"].pipeline == ""
    assert found["dogs"].fault == "" and found["dogs"].pipeline == "StableDiffusionPipeline"


def test_a_checkpoint_right_in_the_folder_is_named_by_it(tmp_path: Path) -> None:
    folder = make(tmp_path, ".")
    [(name, found)] = find_checkpoints([tmp_path]).items()
    assert name == found.name == "Stable-diffusion" and found.path == folder


def test_equal_content_has_equal_hashes_wherever_it_lies(tmp_path: Path) -> None:
    hashes = Hashes(tmp_path / "hashes.json")
    one, same = hashes.of(make(tmp_path / "a", "cats")), hashes.of(make(tmp_path / "b", "other name"))
    assert one == same and len(one) == 64 and int(one, 16)


def test_what_is_loaded_changes_the_hash_and_nothing_else_does(tmp_path: Path) -> None:
    folder, hashes = make(tmp_path, "cats"), Hashes(tmp_path / "hashes.json")
    seen = [hashes.of(folder)]
    (folder / "README.md").write_text("told differently")
    (folder / "preview.png").write_bytes(b"picture")
    assert hashes.of(folder) == seen[0]
    weights = folder / "unet" / "model.safetensors"
    for change in (
        lambda: weights.write_text("weighty"),
        lambda: weights.rename(weights.with_name("renamed.safetensors")),
        lambda: (folder / "config.json").write_text("{}"),
    ):
        change()
        seen.append(hashes.of(folder))
    assert len(set(seen)) == 4


def test_content_is_read_again_only_when_size_or_time_changed(tmp_path: Path) -> None:
    folder, cache = make(tmp_path, "cats"), tmp_path / "cache" / "hashes.json"
    first = Hashes(cache).of(folder)
    weights = folder / "unet" / "model.safetensors"
    before = weights.stat()
    weights.write_text("WEIGHTS")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Hashes(cache).of(folder) == first  # had it been read, the other content would show
    assert Hashes(cache).known(folder) == first
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    assert Hashes(cache).known(folder) == ""
    assert Hashes(cache).of(folder) != first


def test_known_reads_nothing(tmp_path: Path) -> None:
    folder, hashes = make(tmp_path, "cats"), Hashes(tmp_path / "hashes.json")
    assert hashes.known(folder) == "" and not (tmp_path / "hashes.json").exists()
    assert hashes.of(folder) == hashes.known(folder) != ""


@pytest.mark.parametrize("torn", ["", '{"a": "b', "[]"])
def test_a_torn_cache_is_made_again(torn: str, tmp_path: Path) -> None:
    folder, cache = make(tmp_path, "cats"), tmp_path / "hashes.json"
    first = Hashes(cache).of(folder)
    cache.write_text(torn)
    assert Hashes(cache).known(folder) == "" and Hashes(cache).of(folder) == first
    assert Hashes(cache).known(folder) == first and isinstance(json.loads(cache.read_text()), dict)


def test_what_is_no_hash_is_found_out_again(tmp_path: Path) -> None:
    folder, cache = make(tmp_path, "cats"), tmp_path / "hashes.json"
    first = Hashes(cache).of(folder)
    cache.write_text(json.dumps(dict.fromkeys(json.loads(cache.read_text()), 3)))
    assert Hashes(cache).known(folder) == "" and Hashes(cache).of(folder) == first


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    folder = make(tmp_path, "cats")
    assert Hashes(tmp_path / "file" / "hashes.json").of(folder) == Hashes(tmp_path / "fine.json").of(folder)


def test_hash_all_hashes_what_is_named(tmp_path: Path) -> None:
    make(tmp_path, "cats", "one"), make(tmp_path, "dogs", "two"), make(tmp_path, "rats", "three")
    hashes = Hashes(tmp_path / "hashes.json")
    hashed = hash_all(find_checkpoints([tmp_path]), ["cats", "dogs", "cats"], hashes)
    assert list(hashed) == ["cats", "dogs"] and len(set(hashed.values())) == 2


def test_the_catalog_imports_no_heavy_library() -> None:
    heavy = {"torch", "ray", "diffusers", "transformers", "pandas", "numpy"}
    code = f"import sys, farm.weights.catalog; print(*sys.modules.keys() & {heavy})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
