import csv
import json
import re

import pytest

from farm.results.columns import columns_of, missing_scores
from farm.results.gallery import write_gallery
from farm.results.index import write_index
from farm.results.journal import Record
from tests.results.samples import make_plan, score, screen

COLUMNS = {"look": 1.0, "look.edges": 2.0, "look-2": 3.0, "looking.at": 4.0, "nsfw": "passed"}
SCORED = ["look 1 {}", "look-2 1 {}", "looking 1 {}"]


def record(cell):
    return Record(cell.key, 1, "done", "images/a.png", 1, columns=COLUMNS, scores=SCORED)


@pytest.mark.parametrize(
    ("uses", "shown", "missing"),
    [
        ([], [], []),
        ([score("look")], ["look", "look.edges"], []),
        ([score("look-2"), score("looking")], ["look-2", "looking.at"], []),
        ([score("look", version="2")], [], ["look"]),
        ([score("look", settings='{"a":1}'), score("look-2")], ["look-2"], ["look"]),
        ([screen("nsfw")], ["nsfw"], []),
        ([screen("nsfw"), score("new")], ["nsfw"], ["new"]),
    ],
)
def test_only_what_the_job_still_asks_for_is_shown(tmp_path, uses, shown, missing):
    plan = make_plan(plugins=uses)
    [cell] = plan.cells
    known = record(cell)
    assert columns_of(cell, known) == {name: COLUMNS[name] for name in shown}
    assert [use.name for use in missing_scores(cell, known)] == missing

    with write_index(plan, {cell.key: known}, tmp_path).open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert {name for name in row if name in COLUMNS} == set(shown)
    page = write_gallery(plan, {cell.key: known}, tmp_path).read_text(encoding="utf-8")
    [data] = re.findall(r'"columns":(\{[^}]*\})', page)
    assert json.loads(data) == {name: COLUMNS[name] for name in shown}


def test_a_pending_cell_has_none():
    assert columns_of(make_plan(plugins=[score("look")]).cells[0], None) == {}
