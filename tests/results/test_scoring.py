import builtins

import pytest

from farm.results.columns import columns_of
from farm.results.scoring import score_stored, unscored
from farm.results.store import Store
from tests.results.samples import done, failed, make_plan, picture, score

BRIGHT = """
from farm.hooks import hookimpl
__version__ = "2"
@hookimpl
def score_image(image, cell, settings):
    if cell.settings.steps == 3:
        raise ValueError("too dark")
    return {"total": sum(image.getpixel((0, 0)))}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bright.py").write_text(BRIGHT)
    return tmp_path / "results"


def plan_of(*uses, steps=(1, 2)):
    return make_plan({"steps": steps, "twin": ["left", "right"]}, plugins=uses)


def store_pictures(folder, plan, **entries):
    with Store(folder, plan) as store:
        for cell in plan.cells:
            store.write(done(cell, **entries))
        assert unscored(plan, store) == []


def shown(plan, store):
    return [columns_of(cell, store.records()[cell.key]) for cell in plan.cells]


def test_a_score_of_another_version_takes_the_place_of_all_that_the_old_one_said(folder, tmp_path):
    store_pictures(folder, plan_of(score("bright", "1")), columns={"bright": 1.0, "bright.sum": 2.0})
    plan = plan_of(score("bright", "2"))
    expected = [{"bright.total": float(sum(picture(cell).getpixel((0, 0))))} for cell in plan.cells]
    with Store(folder, plan) as store:
        missing = unscored(plan, store)
        assert [cell.settings.steps for cell in missing] == [1, 2]
        assert shown(plan, store) == [{}] * 4
        assert list(score_stored(missing, store, [tmp_path])) == [(cell, "") for cell in missing]
        assert shown(plan, store) == expected
    with Store(folder, plan) as store:
        assert shown(plan, store) == expected and unscored(plan, store) == []


def test_a_score_that_cannot_be_computed_any_more_shows_nothing_and_is_tried_again(folder, tmp_path):
    store_pictures(folder, plan_of(score("bright", "1"), steps=[2, 3]), columns={"bright.total": 1.0})
    plan = plan_of(score("bright", "2"), steps=[2, 3])
    with Store(folder, plan) as store:
        (good, fine), (bad, reason) = score_stored(unscored(plan, store), store, [tmp_path])
        assert (good.settings.steps, fine, bad.settings.steps) == (2, "", 3)
        assert reason == "plugin 'bright' failed in score_image: ValueError: too dark"
        assert [set(columns) for columns in shown(plan, store)] == [{"bright.total"}] * 2 + [set()] * 2
        assert store.records()[bad.key].status == "done"
        assert unscored(plan, store) == [bad]


def test_a_score_that_is_asked_for_again_is_there_still(folder):
    plan = plan_of(score("bright"))
    store_pictures(folder, plan, columns={"bright": 1.0})
    with Store(folder, plan_of()) as store:
        assert shown(plan_of(), store) == [{}] * 4 and unscored(plan_of(), store) == []
    with Store(folder, plan) as store:
        assert shown(plan, store) == [{"bright": 1.0}] * 4 and unscored(plan, store) == []


def test_only_pictures_that_are_there_are_scored(folder):
    plan = plan_of(score("bright", "2"))
    with Store(folder, plan) as store:
        store.write(failed(plan.cells[0]))
        assert unscored(plan, store) == []


@pytest.mark.parametrize("damage", [b"\x89PNG\r\n\x1a\n", b"GIF89a", b""], ids=["cut", "other", "bare"])
def test_a_damaged_picture_costs_its_own_score_only(folder, tmp_path, damage):
    store_pictures(folder, plan_of())
    plan = plan_of(score("bright", "2"))
    with Store(folder, plan) as store:
        first, second = unscored(plan, store)
        path = folder / store.records()[first.key].file
        path.write_bytes(damage + path.read_bytes()[len(damage) : 60])
        reasons = [reason for _, reason in score_stored([first, second], store, [tmp_path])]
        assert path.name in reasons[0] and reasons[1] == ""


def test_a_damaged_picture_does_not_stay_open(folder, tmp_path, monkeypatch):
    store_pictures(folder, plan_of())
    plan = plan_of(score("bright", "2"))
    opened = []

    def watched(*arguments, **options):
        opened.append(ours(*arguments, **options))
        return opened[-1]

    ours = builtins.open
    with Store(folder, plan) as store:
        missing = unscored(plan, store)
        for cell in missing:
            path = folder / store.records()[cell.key].file
            path.write_bytes(path.read_bytes()[:-40])
        monkeypatch.setattr(builtins, "open", watched)
        assert all(reason for _, reason in score_stored(missing, store, [tmp_path]))
    pictures = [file for file in opened if str(file.name).endswith(".png")]
    assert len(pictures) == 2 and all(file.closed for file in pictures)
