from pathlib import Path

import pytest

from farm.rates import MOST, Rates
from farm.work import Kind, Need, Size, Tally, Work

HASHES = {"m": "a" * 64, "n": "b" * 64}
SMALL, LARGE = Size("m", "auto", 64, 64), Size("m", "auto", 128, 64)


def worked(size: Size, row: float, picture: float, waiting: float = 0.0, rows: int = 40) -> Work:
    """Rows in two lengths of prompt; pictures decoded in batches of four."""
    kinds = {
        Kind("predict", *size, tokens=77): Tally(3, rows // 2, rows, row * rows / 2),
        Kind("predict", *size, tokens=154): Tally(3, rows // 2, rows, row * rows / 2),
        Kind("decode", *size): Tally(2, 8, 8, picture * 8),
    }
    return Work(kinds, waiting=waiting)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "rates.json"


def test_a_plan_takes_as_long_as_its_rows_and_pictures(file: Path) -> None:
    Rates(file).note(worked(SMALL, 0.01, 0.5), HASHES, workers=2)
    estimate = Rates(file).estimate({SMALL: Need(1000, 30)}, HASHES)
    assert estimate is not None
    assert (estimate.seconds, estimate.workers) == (pytest.approx((1000 * 0.01 + 30 * 0.5) / 2), 2)


def test_what_happens_beside_the_networks_counts(file: Path) -> None:
    rates, work = Rates(file), worked(SMALL, 0.01, 0.5)
    rates.note(work + Work(waiting=1.1, between=1.1), HASHES, 1)  # half of the 4.4 s of the networks
    estimate = rates.estimate({SMALL: Need(100, 0)}, HASHES)
    assert estimate is not None and estimate.seconds == pytest.approx(1.5)


def test_runs_count_by_their_rows_and_sizes_are_measured_apart(file: Path) -> None:
    rates = Rates(file)
    rates.note(worked(SMALL, 0.05, 0.1, rows=20), HASHES, 1)
    rates.note(worked(SMALL, 0.01, 0.1, rows=60) + worked(LARGE, 0.03, 0.1), HASHES, 1)
    estimate = Rates(file).estimate({SMALL: Need(100, 0), LARGE: Need(100, 0)}, HASHES)
    assert estimate is not None and estimate.seconds == pytest.approx(100 * (0.02 + 0.03))


def test_a_small_run_changes_little_and_many_old_ones_do_not_count_for_ever(file: Path) -> None:
    rates = Rates(file)
    for _ in range(5):
        rates.note(worked(SMALL, 0.01, 0.1, rows=MOST), HASHES, 1)
    rates.note(worked(SMALL, 0.09, 0.1, rows=MOST // 100), HASHES, 1)
    estimate = rates.estimate({SMALL: Need(100, 0)}, HASHES)
    assert estimate is not None and 1.0 < estimate.seconds < 1.1
    rates.note(worked(SMALL, 0.03, 0.1, rows=MOST), HASHES, 1)
    estimate = rates.estimate({SMALL: Need(100, 0)}, HASHES)
    assert estimate is not None and estimate.seconds == pytest.approx(2.0, rel=0.05)


def test_two_farms_keep_what_the_other_found_out(file: Path) -> None:
    one, other = Rates(file), Rates(file)
    one.note(worked(SMALL, 0.01, 0.1), HASHES, 1)
    other.note(worked(LARGE, 0.01, 0.1), HASHES, 1)
    assert Rates(file).estimate({SMALL: Need(1, 0), LARGE: Need(1, 0)}, HASHES) is not None


def test_what_was_never_measured_is_not_guessed(file: Path) -> None:
    rates = Rates(file)
    rates.note(worked(SMALL, 0.01, 0.5), HASHES, 1)
    assert rates.estimate({SMALL: Need(1, 1), LARGE: Need(1, 1)}, HASHES) is None
    assert rates.estimate({SMALL._replace(precision="fp16"): Need(1, 1)}, HASHES) is None
    assert rates.estimate({SMALL: Need(1, 1)}, {"m": HASHES["n"]}) is None  # of the same name, but another
    assert rates.estimate({SMALL: Need(1, 1)}, {"m": ""}) is None
    assert rates.estimate({}, HASHES) is None


TORN = '{"k": {"row": "x", "picture": 1, "rows": 1, "workers": 0, "day": ""}}'


@pytest.mark.parametrize("content", ["", "[]", '{"k": 3}', '{"k": {"row": 1, "unknown": 2}}', TORN])
def test_a_file_of_another_version_is_passed_over(content: str, file: Path) -> None:
    file.parent.mkdir()
    file.write_text(content)
    rates = Rates(file)
    rates.note(worked(SMALL, 0.01, 0.5), HASHES, 1)
    assert Rates(file).estimate({SMALL: Need(1, 0)}, HASHES) is not None


def test_a_run_that_decoded_nothing_says_nothing(file: Path) -> None:
    rates = Rates(file)
    rates.note(Work({Kind("predict", *SMALL, tokens=77): Tally(1, 4, 4, 1.0)}), HASHES, 1)
    rates.note(Work(), HASHES, 0)
    assert rates.estimate({SMALL: Need(1, 0)}, HASHES) is None
