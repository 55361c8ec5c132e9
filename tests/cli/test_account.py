"""What a run says of itself, by what its workers told."""

import pytest

from farm.cell import Outcome
from farm.cli.account import Account
from farm.cluster.coordinator import Done, Notice
from farm.work import Kind, Tally, Work
from tests.results.samples import make_plan

PLAN = make_plan({"cfg_scale": [2, 3], "seed": [1, 2]})
ROWS = PLAN.rows()


def done(rows: int, worker: str = "cpu-0", **others: int) -> Done:
    return Done(worker, Work({Kind("predict", "m"): Tally(1, rows, rows, 1.0)}, **others))


def said(*events: object, follows: bool = False) -> str:
    account = Account(follows)
    for event in events:
        account.add(event)
    return "\n".join(account.lines(PLAN))


def failed() -> Outcome:
    return Outcome(PLAN.cells[0], "failed", error="no", worker="cpu-0")


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([done(ROWS + 1)], "that is 1 row more than planned"),
        (
            [done(ROWS + 2), done(0, "cpu-1")],
            "2 rows more than planned: 2 workers share no rows with each other",
        ),
        ([done(ROWS + 4), Notice("cpu-1", "died", 2)], "4 rows more than planned: 2 went to another worker"),
        ([done(ROWS - 4), failed()], "4 rows fewer than planned: 1 failed"),
        ([done(ROWS + 3, again=3)], "3 rows more than planned: 3 begun again"),
    ],
)
def test_a_difference_is_told_with_its_reasons(events: list[object], told: str) -> None:
    assert told in said(*events).splitlines()[1]


def test_what_is_as_planned_is_no_difference() -> None:
    assert "than planned" not in said(done(ROWS))


def test_a_job_before_explains_fewer_rows_only() -> None:
    assert "fewer than planned: rows of the job before were still known" in said(done(ROWS - 2), follows=True)
    assert "job before" not in said(done(ROWS + 2), follows=True)
