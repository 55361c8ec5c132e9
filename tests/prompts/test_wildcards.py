import os
import re

import pytest

from farm.prompts.dynamic import DynamicPrompts
from farm.prompts.wildcards import BadDynamic, Wildcards, read_wildcards, references


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "colours").mkdir()
    (tmp_path / "colours" / "warm.txt").write_bytes(b"\xef\xbb\xbfred\r\n# not this\n\n orange \n")
    (tmp_path / "b.yaml").write_text(
        "animal:\n  - 2::cat\n  - {text: dog, weight: 0.5}\n  - owl\nb: {c: [d]}\n"
    )
    (tmp_path / "list.json").write_text('["x", "y"]')
    return tmp_path


def test_files_of_all_kinds_are_read(folder):
    values, files, complaints = read_wildcards(folder)
    assert dict(values) == {
        "animal": ("2::cat", "0.5::dog", "owl"),
        "b/c": ("d",),
        "colours/warm": ("red", "orange"),
        "list": ("x", "y"),
    }
    assert files == {"colours/warm": folder / "colours" / "warm.txt"}
    assert complaints == []


def test_only_files_that_are_named_are_read(folder):
    (folder / "later.txt").write_text("x")
    values, _, _ = read_wildcards(folder)
    (folder / "later.txt").write_text("y")
    wildcards = Wildcards(values)
    assert wildcards.matching("warm") == ["colours/warm"]
    (folder / "later.txt").write_text("z")
    assert (wildcards.matching("later"), wildcards.values["later"]) == (["later"], ("z",))


@pytest.mark.parametrize("name", ["pipe.txt", "pipe.yaml", "pipe.json"])
def test_what_is_no_regular_file_is_not_opened(folder, name):
    os.mkfifo(folder / name)
    (folder / "zero.txt").symlink_to("/dev/zero")
    values, files, complaints = read_wildcards(folder)
    if name.endswith(".txt"):
        with pytest.raises(BadDynamic, match=re.escape(f"{folder / name} is not a regular file")):
            values["pipe"]
    else:
        assert complaints == [f"{folder / name} is not a regular file"]
    with pytest.raises(BadDynamic, match="zero.txt is not a regular file"):
        Wildcards(values, "", files).matching("zero")


def test_files_that_are_too_large_or_empty_are_told(folder):
    (folder / "big.txt").write_bytes(b"x" * (5 << 20))
    (folder / "empty.txt").write_text("# nothing\n")
    values, files, _ = read_wildcards(folder)
    wildcards = Wildcards(values, "", files)
    with pytest.raises(BadDynamic, match="big.txt is larger than 4 MiB"):
        wildcards.matching("big")
    with pytest.raises(BadDynamic, match=r"^the wildcard 'empty' has no values \(.*empty.txt\)$"):
        wildcards.matching("empty")


def test_a_value_that_cannot_be_read_is_told_with_its_line(folder):
    (folder / "bad.txt").write_text("# two of them\n{a\n\nb\n{c\n")
    values, files, _ = read_wildcards(folder)
    with pytest.raises(BadDynamic) as caught:
        DynamicPrompts(Wildcards(values, "", files)).check("__bad__")
    assert [fault.partition("'{")[0] for fault in caught.value.faults] == [
        f"wildcard 'bad' ({folder / 'bad.txt'}:{line}): " for line in (2, 5)
    ]


def test_what_cannot_be_read_is_told(folder, capfd):
    (folder / "bad.json").write_text("[")
    values, _, [complaint] = read_wildcards(folder)
    assert "bad" not in values
    assert "bad.json" in complaint
    assert capfd.readouterr() == ("", "")


def test_the_names_that_a_text_calls():
    text = "<lora:x__y:1> __a__ and __~b/*__ or __c(v=1)__, {__d__|__{e|f}__}"
    assert references(text) == ["a", "b/*", "c", "d", "{e|f}"]


def test_what_texts_may_come_to_use():
    wildcards = Wildcards({"a": ("__b__", "x"), "b": ("y",), "c/d": ("{z|__a__}",), "e": ("w",)})
    assert set(wildcards.reachable(["__a__"]).values) == {"a", "b"}
    assert set(wildcards.reachable(["__~c/*__ and __e(v=1)__"]).values) == {"a", "b", "c/d", "e"}
    assert set(wildcards.reachable(["no"]).values) == set()
    assert set(wildcards.reachable(["<lora:x__y:1> __b__"]).values) == {"b"}
    assert wildcards.reachable(["__{a|b}__"]) == wildcards
    assert wildcards.reachable(["__a"]) == wildcards


def test_what_cannot_be_read_is_not_written_out(folder):
    os.mkfifo(folder / "pipe.txt")
    values, files, _ = read_wildcards(folder)
    wildcards = Wildcards(values, "", files)
    assert set(wildcards.reachable(["__pipe__ __warm__"]).values) == {"colours/warm"}
    assert "pipe" not in wildcards.reachable(["__{a|b}__"]).values
