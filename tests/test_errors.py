import pytest

from farm.errors import LONGEST_FOREIGN, BadInput, CellFailed, FarmError, Problem, described, near_name


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("first\n  second\n"), "RuntimeError: first second"),
        (MemoryError(), "MemoryError"),
        (KeyError("name"), "KeyError: 'name'"),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("x" * 5000), f"ValueError: {'x' * LONGEST_FOREIGN}…"),
        (FarmError("ours"), "ours"),
        (FarmError(), "FarmError"),
        (CellFailed("too\nmuch"), "too much"),
        (CellFailed("x" * 5000), "x" * 5000),
        (BadInput([Problem("a:1", "b"), Problem("c:2", "d")]), "a:1: b c:2: d"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_exception_in_one_line(error: BaseException, line: str) -> None:
    assert described(error) == line


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("STEPZ", "steps"),
        ("cfg", "cfg_scale"),
        ("scale", "cfg_scale"),
        ("size", None),
        ("xy", None),
        ("x" * 5000, None),
    ],
)
def test_the_nearest_name_is_like_it_or_begins_or_ends_so(wanted, meant):
    assert near_name(wanted, ["steps", "cfg_scale", "guidance_rescale", "resize_from"]) == meant
