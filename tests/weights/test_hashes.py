import hashlib
import json
import os
from pathlib import Path

import pytest

from farm.weights.hashes import Hashes
from tests.weights.test_catalog import make


def test_a_file_s_hash_is_that_of_its_content(tmp_path: Path) -> None:
    file = tmp_path / "cats.ckpt"
    file.write_bytes(b"weights")
    hashes = Hashes(tmp_path / "hashes.json")
    assert hashes.known(file) == ""
    assert (
        hashes.of(file)
        == hashlib.sha256(b"weights").hexdigest()
        == Hashes(tmp_path / "hashes.json").known(file)
    )


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
