import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from farm.cache_file import CacheFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "known.json"


def test_entries_stand_beside_those_of_others(path: Path) -> None:
    one, other = CacheFile(path), CacheFile(path)
    one.update({"a": 1})
    other.update({"b": [2]})
    one.update({"a": 3})
    assert CacheFile(path).read() == {"a": 3, "b": [2]}
    assert {file.suffix for file in path.parent.iterdir()} <= {".json", ".lock"}


WRITING = """
import sys
from pathlib import Path
from farm.cache_file import CacheFile
for number in range(60):
    CacheFile(Path(sys.argv[1])).update({f"{sys.argv[2]} {number}": number})
"""


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITING, str(path), name]) for name in "abc"]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 3
    assert len(CacheFile(path).read()) == 3 * 60


def test_a_full_disk_keeps_what_was_there_and_leaves_nothing_behind(path: Path) -> None:
    resource = pytest.importorskip("resource")
    CacheFile(path).update({"a": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # bytes that a file may have
    try:
        CacheFile(path).update({"b": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert CacheFile(path).read() == {"a": 1}
    assert not list(path.parent.glob("*.tmp"))


def test_what_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    CacheFile(tmp_path / "file" / "known.json").update({"a": 1})
    monkeypatch.setattr("farm.cache_file.PATIENCE", 0.05)
    with FileLock(tmp_path / "known.lock"):
        CacheFile(tmp_path / "known.json").update({"a": 1})
    assert CacheFile(tmp_path / "known.json").read() == {}
    CacheFile(None).update({"a": 1})


@pytest.mark.parametrize("content", ["", "[]", '{"a": ', "\xff", "[" * 100_000, json.dumps("a")])
def test_what_is_torn_is_begun_anew(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content, encoding="latin-1")
    assert CacheFile(path).read() == {}
    CacheFile(path).update({"a": 1})
    assert CacheFile(path).read() == {"a": 1}
