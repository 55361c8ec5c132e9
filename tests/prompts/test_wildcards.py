import pytest

from farm.prompts.wildcards import Wildcards, read_wildcards


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
    assert read_wildcards(folder) == (
        {
            "animal": ("2::cat", "0.5::dog", "owl"),
            "b/c": ("d",),
            "colours/warm": ("red", "orange"),
            "list": ("x", "y"),
        },
        [],
    )


def test_what_cannot_be_read_is_told(folder, capfd):
    (folder / "bad.json").write_text("[")
    values, [complaint] = read_wildcards(folder)
    assert "bad" not in values
    assert "bad.json" in complaint
    assert capfd.readouterr() == ("", "")


def test_what_texts_may_come_to_use():
    wildcards = Wildcards({"a": ("__b__", "x"), "b": ("y",), "c/d": ("{z|__a__}",), "e": ("w",)})
    assert set(wildcards.reachable(["__a__"]).values) == {"a", "b"}
    assert set(wildcards.reachable(["__~c/*__ and __e(v=1)__"]).values) == {"a", "b", "c/d", "e"}
    assert set(wildcards.reachable(["no"]).values) == set()
    assert wildcards.reachable(["__{a|b}__"]) == wildcards
    assert wildcards.reachable(["__a"]) == wildcards
