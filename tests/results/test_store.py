import csv
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from farm.errors import FarmError
from farm.results.infotext import read_cell
from farm.results.journal import Journal, Record, read_journal
from farm.results.store import Store, read_records
from tests.results.samples import done, failed, make_plan

HEAVY = ("torch", "ray", "diffusers", "transformers", "pandas", "numpy", "PIL")


@pytest.fixture
def plan():
    return make_plan({"cfg_scale": [1, 5, 10], "sampler": ["Euler", "Heun"]})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "cats"


def lines(folder):
    return (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)


def rows(folder):
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_written_is_there_for_the_next_run(plan, folder):
    first, second, *_ = plan.cells
    with Store(folder, plan) as store:
        kept = store.write(done(first, columns={"sharpness": 0.5}))
        store.write(failed(second))
        store.write_job()
    with Store(folder, plan) as store:
        assert store.done() == {first.key: kept}
        assert store.records()[second.key].error == "out of memory"
        assert [cell.number for cell in plan.without(store.done()).cells] == [2, 3, 4, 5, 6]
    assert kept.columns == {"sharpness": 0.5} and kept.seconds == 0.25 and kept.worker == "w1"
    assert read_cell(folder / kept.file) == first
    assert (folder / "job.yaml").read_text(encoding="utf-8") == plan.job_yaml


def test_the_picture_is_there_before_its_line(plan, folder, monkeypatch):
    with Store(folder, plan) as store:

        def stopped(record):
            assert Image.open(folder / record.file).size == (64, 64)
            raise FarmError("power cut")

        monkeypatch.setattr(store._journal, "append", stopped)
        with pytest.raises(FarmError, match="power cut"):
            store.write(done(plan.cells[0]))
        assert store.done() == {}
    assert read_records(folder) == {}


def test_a_failed_cell_is_tried_again_and_its_attempts_are_counted(plan, folder):
    cell = plan.cells[0]
    for attempt in (1, 2):
        with Store(folder, plan) as store:
            assert cell.key not in store.done()
            assert store.write(failed(cell, "line\n two")).attempts == attempt
    with Store(folder, plan) as store:
        assert store.write(done(cell)).attempts == 3
        assert store.records()[cell.key].error == ""
    assert len(lines(folder)) == 3


def test_a_picture_that_is_there_is_not_replaced(plan, folder):
    cell = plan.cells[0]
    with Store(folder, plan) as store:
        kept = store.write(done(cell))
        assert store.write(failed(cell)) == kept
        assert store.write(done(cell, size=(8, 8))) == kept
    assert len(lines(folder)) == 1 and (folder / kept.file).stat().st_size == kept.size


@pytest.mark.parametrize(
    "torn", [b'{"key":"', b"", b"\0\0\0\0", b'{"key": "x"}', b"[1]", '{"é'.encode()[:-1]]
)
@pytest.mark.parametrize("ended", [b"", b"\n"])
def test_a_torn_line_costs_its_own_cell_only(plan, folder, torn, ended):
    first, second, *_ = plan.cells
    with Store(folder, plan) as store:
        store.write(done(first))
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(torn + ended)
    assert set(read_records(folder)) == {first.key}
    with Store(folder, plan) as store:
        store.write(done(second))
    assert set(read_records(folder)) == {first.key, second.key}
    assert all(line.endswith(b"\n") for line in lines(folder))


WHOLE = {"key": "x", "number": 1, "status": "done", "file": "images/a.png", "size": 4}


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": "a"}, {"size": "4"}, {"size": None}, {"size": 4.5}, {"size": True}, {"number": "1"},
        {"key": 1}, {"status": "gone"}, {"file": 1}, {"error": None}, {"seconds": "fast"}, {"attempts": []},
        {"columns": []}, {"columns": {"a": None}}, {"columns": {"a": [1]}}, {"scores": "a"}, {"scores": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_a_line_of_wrong_types_counts_as_never_written(plan, folder, wrong):
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(b"half")
    good = {"key": "y", "more": {"of": "a newer farm"}}
    for entry in (WHOLE, WHOLE | good, WHOLE | wrong):
        with (folder / "journal.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    assert set(read_records(folder)) == {"x", "y"}
    Store(folder, plan).close()


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.floats() | st.booleans(),
    )
)
@example({"a": True, "b": 1, "c": 1.0, "d": "1", "e": "true", "f": -0.0, "g": 2**64, "h": 1e22})
def test_columns_are_read_as_they_were(columns):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "journal.jsonl"
        journal = Journal(path)
        journal.append(Record("x", 1, "done", columns=columns))
        journal.close()
        assert repr(read_journal(path)["x"].columns) == repr(columns)


def test_text_that_no_file_can_hold_does_not_cost_its_line(plan, folder):
    """Half a surrogate pair, as Python makes of names of files that are no text."""
    cell = plan.cells[0]
    with Store(folder, plan) as store:
        store.write(done(cell, columns={"nsfw": "caf\udce9"}))
    assert read_records(folder)[cell.key].columns == {"nsfw": "caf?"}


def test_any_cut_through_the_journal_leaves_the_lines_before_it(plan, folder):
    with Store(folder, plan) as store:
        for cell in plan.cells[:3]:
            store.write(done(cell))
    journal = folder / "journal.jsonl"
    whole = journal.read_bytes()
    for length in range(0, len(whole), 23):
        journal.write_bytes(whole[:length])
        expected = whole[:length].count(b"\n")
        with Store(folder, plan) as store:
            assert len(store.done()) == expected
            store.write(done(plan.cells[5]))
        assert len(read_records(folder)) == expected + 1


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"half")])
def test_a_lost_or_cut_picture_is_rendered_again(plan, folder, damage):
    cell = plan.cells[0]
    with Store(folder, plan) as store:
        damage(folder / store.write(done(cell)).file)
    with Store(folder, plan) as store:
        assert store.done() == {}
        store.write(done(cell))
        assert set(store.done()) == {cell.key}


def test_a_changed_job_takes_only_its_own_pictures(plan, folder):
    with Store(folder, plan) as store:
        for cell in plan.cells:
            store.write(done(cell))
    changed = make_plan({"cfg_scale": [5, 7], "sampler": ["Heun", "Euler"]})
    with Store(folder, changed) as store:
        assert {changed.cells[0].key, changed.cells[1].key} == set(store.done()) == set(store.records())
        store.write_index()
    for row in rows(folder):
        wanted = changed.cells[int(row["cell"]) - 1]
        assert row["status"] == ("done" if wanted.settings.cfg_scale == 5 else "pending")
        if row["file"]:
            assert read_cell(folder / row["file"]).settings == wanted.settings


def test_cells_with_equal_keys_share_one_picture(folder):
    plan = make_plan({"twin": ["left", "right"]})
    with Store(folder, plan) as store:
        store.write(done(plan.cells[0]))
        assert plan.without(store.done()).cells == ()
        store.write_index()
    left, right = rows(folder)
    assert left["file"] == right["file"] and left["status"] == right["status"] == "done"


def test_there_is_one_writer(plan, folder):
    with Store(folder, plan), pytest.raises(FarmError) as error:
        Store(folder, plan)
    assert str(error.value) == f"{folder}: another farm is writing there; wait for it to end, or stop it"
    Store(folder, plan).close()


def test_another_process_is_kept_out_and_a_killed_one_does_not_lock_for_ever(plan, folder):
    code = (
        "import sys, pathlib\nfrom farm.results.store import Store\nfrom farm.plan import *\n"
        "store = Store(pathlib.Path(sys.argv[1]), Plan('x', (), Layout(), ()))\n"
        "print('open', flush=True)\nsys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(FarmError, match="another farm is writing there"):
            Store(folder, plan)
    finally:
        process.kill()
        process.communicate()
    Store(folder, plan).close()


def test_what_a_killed_writer_left_is_cleared_away(plan, folder):
    (folder / "images").mkdir(parents=True)
    (folder / "images" / ".unfinished-1").write_bytes(b"half")
    (folder / ".unfinished-2").write_bytes(b"half")
    Store(folder, plan).close()
    assert not list(folder.rglob(".unfinished*"))


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are POSIX")
@pytest.mark.parametrize("victim", ["picture", "journal"])
def test_a_full_disk_is_one_clear_line_and_nothing_is_half_there(plan, folder, victim):
    """A limit on the size of files stands for a full disk: a write ends in the middle, the next one fails."""
    with Store(folder, plan) as store:
        size = store.write(done(plan.cells[0])).size
    limit = size // 2 if victim == "picture" else (folder / "journal.jsonl").stat().st_size + 20
    if victim == "journal":
        with (folder / "journal.jsonl").open("ab") as file:
            file.write(b"\n" * size)  # longer than any picture, so that the journal is what fails
        limit += size
    code = (
        "import resource, sys, pathlib\nfrom farm.errors import FarmError\n"
        "from farm.results.store import Store\nfrom tests.results.samples import *\n"
        "plan = make_plan({'cfg_scale': [1, 5, 10], 'sampler': ['Euler', 'Heun']})\n"
        "store = Store(pathlib.Path(sys.argv[1]), plan)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try:\n    store.write(done(plan.cells[1]))\nexcept FarmError as error:\n    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, folder, str(limit)], capture_output=True, text=True, check=True
    )
    [line] = result.stdout.splitlines()
    assert str(folder) in line and "cannot be written" in line
    assert not list(folder.rglob(".unfinished*"))
    assert lines(folder)[-1].endswith(b"\n")
    with Store(folder, plan) as store:
        assert set(store.done()) == {plan.cells[0].key}
        store.write(done(plan.cells[1]))
        assert set(store.done()) == {plan.cells[0].key, plan.cells[1].key}


def test_hostile_names_stay_inside_the_folder(folder):
    plan = make_plan(
        {"prompt": ["../../etc/passwd", "C:\\con", "a\0b", "x" * 5000, "..", "猫", " ", "CON", "a/b"]}
    )
    with Store(folder, plan) as store:
        names = [store.write(done(cell)).file for cell in plan.cells]
    assert len(set(names)) == len(plan.cells)
    for name in names:
        path = (folder / name).resolve()
        assert path.is_file() and path.parent == (folder / "images").resolve()
        assert len(path.name) <= 120
        assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


def test_reading_imports_nothing_heavy():
    code = f"import sys, farm.results.store; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.slow
def test_a_hundred_thousand_records_are_read(folder):
    folder.mkdir(parents=True)
    cell = make_plan().cells[0]
    with Store(folder, make_plan()) as store:
        line = json.loads(json.dumps({**_entry(store.write(failed(cell))), "columns": {"sharpness": 0.5}}))
    with (folder / "journal.jsonl").open("w", encoding="utf-8") as file:
        for number in range(100_000):
            file.write(json.dumps({**line, "key": f"{number:032x}", "number": number}) + "\n")
    records = read_records(folder)
    assert len(records) == 100_000 and records[f"{99_999:032x}"].number == 99_999


def _entry(record):
    return {name: getattr(record, name) for name in record.__slots__} | {"columns": dict(record.columns)}


def test_records_can_be_read_while_pictures_come(tmp_path):
    plan = make_plan({"seed": list(range(300))})

    def write():
        with Store(tmp_path, plan) as store:
            for cell in plan.cells:
                store.write(done(cell))

    writer, counts = threading.Thread(target=write), [0]
    writer.start()
    while writer.is_alive():
        counts.append(len(read_records(tmp_path)))
    assert counts == sorted(counts) and len(read_records(tmp_path)) == 300
