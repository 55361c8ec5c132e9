import json
from pathlib import Path

import pytest

from farm.rates import MOST, Rates
from farm.work import Kind, Need, Needs, Networks, Size, Tally, Work

HASHES = {"m": "a" * 64, "n": "b" * 64}
SMALL, LARGE = Size("m", "auto", 64, 64), Size("m", "auto", 128, 64)
CARD, CPU = "some card", "some processor, 1 thread"
HERE = "/home/somebody/studio"


def worked(
    size: Size, row: float, picture: float, waiting: float = 0.0, rows: int = 40, device: str = CARD
) -> Work:
    """Rows in two lengths of prompt; pictures decoded in batches of four."""
    kinds = {
        Kind("predict", *size, tokens=77): Tally(3, rows // 2, rows, row * rows / 2),
        Kind("predict", *size, tokens=154): Tally(3, rows // 2, rows, row * rows / 2),
        Kind("decode", *size): Tally(2, 8, 8, picture * 8),
    }
    return Work(kinds, waiting=waiting, device=device)


def wanted(rows: float, pictures: int = 0, size: Size = SMALL, loads: int = 0, texts: int = 0) -> Needs:
    networks = Networks(size.model, size.precision)
    return Needs({size: Need(rows, pictures)}, {networks: loads}, {networks: texts})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "rates.json"


def test_a_plan_takes_as_long_as_its_rows_and_pictures(file: Path) -> None:
    Rates(file).note([worked(SMALL, 0.01, 0.5)] * 2, HASHES, HERE)
    estimate = Rates(file).estimate(wanted(1000, 30), HASHES, HERE)
    assert estimate is not None
    assert (estimate.seconds, estimate.workers) == (pytest.approx((1000 * 0.01 + 30 * 0.5) / 2), 2)
    assert estimate.device == CARD


def test_what_happens_beside_the_networks_counts(file: Path) -> None:
    rates, work = Rates(file), worked(SMALL, 0.01, 0.5)
    rates.note([work + Work(waiting=1.1, between=1.1)], HASHES, HERE)  # half of the 4.4 s of the networks
    estimate = rates.estimate(wanted(100), HASHES, HERE)
    assert estimate is not None and estimate.seconds == pytest.approx(1.5)


def test_loads_and_texts_count(file: Path) -> None:
    """With several workers each loads at least once, and at the same time; texts are shared out."""
    rates = Rates(file)
    prepared = Work(
        {
            Kind("load", "m", "auto"): Tally(2, seconds=6.0),
            Kind("encode text", "m", "auto", tokens=77): Tally(1, 8, 8, 2.0),
        }
    )
    rates.note([worked(SMALL, 0.01, 0.5) + prepared] * 2, HASHES, HERE)
    told = [(0, 0, 0.0), (1, 0, 3.0), (2, 0, 3.0), (6, 0, 9.0), (0, 8, 1.0), (1, 4, 3.5)]
    for loads, texts, seconds in told:
        estimate = Rates(file).estimate(wanted(100, 2, loads=loads, texts=texts), HASHES, HERE)
        assert estimate is not None and estimate.seconds == pytest.approx(1.0 + seconds), (loads, texts)


def test_encodings_of_pictures_to_start_from_count(file: Path) -> None:
    encoding = Work({Kind("encode image", *SMALL): Tally(1, 4, 8, 2.0)})
    Rates(file).note([worked(SMALL, 0.01, 0.5) + encoding], HASHES, HERE)
    estimate = Rates(file).estimate(Needs({SMALL: Need(100, 2, encodings=6)}), HASHES, HERE)
    assert estimate is not None and estimate.seconds == pytest.approx(100 * 0.01 + 2 * 0.5 + 6 * 0.5)


def test_workers_that_had_nothing_to_do_are_reckoned_with(file: Path) -> None:
    """A run of one picture leaves most of them idle."""

    def found(*works: Work, workers: int) -> tuple[int, str]:
        Rates(file).note(works, HASHES, HERE, workers)
        estimate = Rates(file).estimate(wanted(100), HASHES, HERE)
        assert estimate is not None
        return estimate.workers, estimate.device

    on_card, on_cpu = worked(SMALL, 0.01, 0.5), worked(SMALL, 0.1, 0.5, device=CPU)
    assert found(on_card, workers=4) == (4, CARD)
    assert found(on_card, on_cpu, on_cpu, workers=3) == (3, f"{CARD} and {CPU}")
    assert found(on_cpu, on_card, workers=3) == (3, f"{CARD} and {CPU}")  # as in the run before
    assert found(on_cpu, on_card, workers=9) == (2, f"{CPU} and {CARD}")  # nobody knows


def test_approximated_rows_count_as_plans_weigh_them(file: Path) -> None:
    shallow = Kind("predict", *SMALL, tokens=77, approximation="shallow", weight=0.2)
    merged = Kind("predict", *SMALL, tokens=77, approximation="50% merged")
    decode = Kind("decode", *SMALL)
    kinds = {shallow: Tally(5, 50, seconds=2.0), merged: Tally(5, 10, seconds=2.0)}
    rates = Rates(file)
    rates.note([Work({**kinds, decode: Tally(1, 1, seconds=1.0)}, device=CARD)], HASHES, HERE)
    estimate = rates.estimate(wanted(30), HASHES, HERE)
    assert estimate is not None and estimate.seconds == pytest.approx(30 * 4.0 / (50 * 0.2 + 10))


def test_devices_are_measured_apart_and_plans_go_by_those_of_the_last_run_in_a_folder(file: Path) -> None:
    def estimated(where: str, size: Size = SMALL) -> tuple[float, int, str] | None:
        found = Rates(file).estimate(wanted(100, size=size), HASHES, where)
        return None if found is None else (round(found.seconds, 6), found.workers, found.device)

    Rates(file).note([worked(SMALL, 0.3, 0.5, device=CPU)] * 3, HASHES, "/elsewhere")
    assert estimated(HERE) == (10.0, 3, CPU)  # rather than nothing
    Rates(file).note([worked(SMALL, 0.01, 0.1)], HASHES, HERE)
    assert estimated(HERE) == (1.0, 1, CARD) and estimated("/elsewhere") == (10.0, 3, CPU)
    Rates(file).note([worked(LARGE, 0.6, 0.5, device=CPU)] * 2, HASHES, HERE)
    assert estimated(HERE) == (15.0, 2, CPU) and estimated(HERE, LARGE) == (30.0, 2, CPU)
    Rates(file).note([worked(SMALL, 0.01, 0.1)], HASHES, HERE)
    assert estimated(HERE, LARGE) == (30.0, 2, CPU)  # the card was never asked


def test_workers_with_different_devices_share_the_work_by_their_speed(file: Path) -> None:
    works = [worked(SMALL, 0.03, 0.1), *[worked(SMALL, 0.12, 0.1, device=CPU)] * 2]
    Rates(file).note(works, HASHES, HERE)
    estimate = Rates(file).estimate(wanted(100), HASHES, HERE)
    assert estimate is not None and estimate.seconds == pytest.approx(100 / (1 / 0.03 + 2 / 0.12))
    assert (estimate.workers, estimate.device) == (3, f"{CARD} and {CPU}")


def test_runs_count_by_their_rows_and_sizes_are_measured_apart(file: Path) -> None:
    rates = Rates(file)
    rates.note([worked(SMALL, 0.05, 0.1, rows=20)], HASHES, HERE)
    rates.note([worked(SMALL, 0.01, 0.1, rows=60) + worked(LARGE, 0.03, 0.1)], HASHES, HERE)
    needs = Needs({SMALL: Need(100, 0), LARGE: Need(100, 0)})
    estimate = Rates(file).estimate(needs, HASHES, HERE)
    assert estimate is not None and estimate.seconds == pytest.approx(100 * (0.02 + 0.03))


def test_a_small_run_changes_little_and_many_old_ones_do_not_count_for_ever(file: Path) -> None:
    rates, most = Rates(file), MOST["row"]
    for _ in range(5):
        rates.note([worked(SMALL, 0.01, 0.1, rows=most)], HASHES, HERE)
    rates.note([worked(SMALL, 0.09, 0.1, rows=most // 100)], HASHES, HERE)
    estimate = rates.estimate(wanted(100), HASHES, HERE)
    assert estimate is not None and 1.0 < estimate.seconds < 1.1
    rates.note([worked(SMALL, 0.03, 0.1, rows=most)], HASHES, HERE)
    estimate = rates.estimate(wanted(100), HASHES, HERE)
    assert estimate is not None and estimate.seconds == pytest.approx(2.0, rel=0.05)


def test_two_farms_keep_what_the_other_found_out(file: Path) -> None:
    one, other = Rates(file), Rates(file)
    one.note([worked(SMALL, 0.01, 0.1)], HASHES, HERE)
    other.note([worked(LARGE, 0.01, 0.1)], HASHES, HERE)
    assert Rates(file).estimate(Needs({SMALL: Need(1, 0), LARGE: Need(1, 0)}), HASHES, HERE) is not None


def test_checkpoints_of_equal_content_are_one(file: Path) -> None:
    hashes = {"m": HASHES["m"], "copy": HASHES["m"]}
    Rates(file).note([worked(SMALL, 0.01, 0.1)], HASHES, HERE)
    needs = Needs({SMALL: Need(100, 0), SMALL._replace(model="copy"): Need(200, 0)})
    estimate = Rates(file).estimate(needs, hashes, HERE)
    assert estimate is not None and estimate.seconds == pytest.approx(3.0)


def test_what_was_never_measured_is_not_guessed(file: Path) -> None:
    rates = Rates(file)
    rates.note([worked(SMALL, 0.01, 0.5)], HASHES, HERE)
    assert rates.estimate(Needs({SMALL: Need(1, 1), LARGE: Need(1, 1)}), HASHES, HERE) is None
    assert rates.estimate(wanted(1, 1, SMALL._replace(precision="fp16")), HASHES, HERE) is None
    assert rates.estimate(wanted(1, 1), {"m": HASHES["n"]}, HERE) is None  # of the same name, but another
    assert rates.estimate(wanted(1, 1), {"m": ""}, HERE) is None
    assert rates.estimate(Needs({}), HASHES, HERE) is None


RIGHT = {"seconds": 1.0, "count": 1, "workers": 1, "day": "2026-01-01"}
WRONG = [{"new": 1}, {"seconds": "x"}, {"seconds": float("nan")}, {"count": 0}, {"workers": None}, {"day": 3}]


KEY = f"row | {'a' * 16} auto 64x64 | {CARD}"
TORN = [{KEY: RIGHT | wrong} for wrong in WRONG]
TORN += [{f"last run in {HERE}": last} for last in ({CARD: "x"}, 3)]


@pytest.mark.parametrize("content", ["", "[]", '{"k": 3}', *map(json.dumps, TORN)])
def test_a_file_of_another_version_is_passed_over(content: str, file: Path) -> None:
    file.parent.mkdir()
    file.write_text(content)
    assert Rates(file).estimate(wanted(1), HASHES, HERE) is None
    rates = Rates(file)
    rates.note([worked(SMALL, 0.01, 0.5)], HASHES, HERE)
    estimate = Rates(file).estimate(wanted(100), HASHES, HERE)
    assert estimate is not None and estimate.seconds == pytest.approx(1.0)


def test_a_run_that_decoded_nothing_says_nothing(file: Path) -> None:
    rates = Rates(file)
    rates.note([Work({Kind("predict", *SMALL, tokens=77): Tally(1, 4, 4, 1.0)})], HASHES, HERE)
    rates.note([Work()], HASHES, HERE)
    rates.note([], HASHES, HERE)
    assert rates.estimate(wanted(1), HASHES, HERE) is None
