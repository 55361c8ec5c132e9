"""Sheets of a run that goes on: drawn beside it, whatever may become of them."""

import threading

import pytest
from PIL import Image

from farm.cli import early
from farm.cli.early import Early
from farm.errors import FarmError
from farm.ordering import Order
from farm.results.sheet import each_sheet
from farm.results.store import Store
from tests.results.samples import done, make_plan

AXES = {"cfg_scale": [1, 2, 3, 4, 5, 6, 7, 8, 9], "steps": [5, 20]}


@pytest.fixture
def store(tmp_path):
    plan = make_plan(AXES).in_order(Order.COARSE)
    with Store(tmp_path, plan) as store:
        yield plan, store


def rendered(plan, store, beside, say):
    for cell in plan.cells:
        store.write(done(cell))
        say(beside.add(cell))
        if beside._drawing:
            beside._drawing.result(timeout=60)


def test_each_wave_but_the_last_is_drawn_and_told(store):
    plan, store = store
    said = []
    with Early(plan, plan, store) as beside:
        rendered(plan, store, beside, said.append)
    waves = len({plan.wave_of(cell) for cell in plan.cells})
    lines = [line for line in said if line]
    assert waves > 2 and len(lines) == waves - 1
    assert "of 18 cells are there, spread over the axes: " in lines[0]
    sheet, *_ = each_sheet(plan, store.records(), store.folder)
    assert lines[0].endswith(str(sheet))
    with Image.open(sheet) as picture:
        picture.load()
    assert (store.folder / "index.html").is_file()


def test_what_cannot_be_drawn_is_told_and_ends_nothing(store, monkeypatch):
    def fails(*_):
        raise FarmError("the disk is full")

    monkeypatch.setattr(early, "write_gallery", fails)
    plan, store = store
    said = []
    with Early(plan, plan, store) as beside:
        rendered(plan, store, beside, said.append)
    assert said[-1] == "" and next(filter(None, said)).endswith(": no early sheets: the disk is full")


def test_the_run_does_not_wait_for_sheets_and_its_end_begins_no_other(store, monkeypatch):
    drawing, go_on, begun = threading.Event(), threading.Event(), []

    def slowly(*given):
        for sheet in (*each_sheet(*given), *each_sheet(*given)):
            begun.append(sheet)
            drawing.set()
            assert go_on.wait(60)
            yield sheet

    monkeypatch.setattr(early, "each_sheet", slowly)
    plan, store = store
    with Early(plan, plan, store) as beside:
        said = [beside.add(cell) for cell in plan.cells]
        assert drawing.wait(60)
        beside._ends = True
        go_on.set()
    assert said == [""] * len(plan.cells) and len(begun) == 1
