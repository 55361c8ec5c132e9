import os
import stat
import sys

import pytest

from farm.errors import FarmError
from farm.results.whole import whole_file, write_whole


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "index.csv"
    with whole_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half" and [entry.name for entry in path.parent.iterdir()] == ["index.csv"]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "index.csv"
    write_whole(path, b"old")
    with pytest.raises(KeyError), whole_file(path) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FarmError, match="index.csv: cannot be written: "):
        write_whole(tmp_path / "file" / "index.csv", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
def test_others_may_read_what_they_may_read_of_ordinary_files(tmp_path):
    (tmp_path / "ordinary").write_bytes(b"")
    write_whole(tmp_path / "ours", b"")
    modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("ordinary", "ours")}
    assert len(modes) == 1
