import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from farm.interrupts import uninterrupted


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The interrupts that came through, instead of ending the tests."""
    found: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        found.append(number)

    before = signal.signal(signal.SIGINT, hear)
    yield found
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_until_the_block_is_through(heard: list[int]) -> None:
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
        assert not heard
    assert len(heard) == 1


def test_the_second_one_does_not_wait(heard: list[int]) -> None:
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert len(heard) == 1
    assert len(heard) == 1
    signal.raise_signal(signal.SIGINT)
    assert len(heard) == 2


def test_a_block_that_raises_is_interrupted_after_it(heard: list[int]) -> None:
    with pytest.raises(KeyError), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        raise KeyError
    assert len(heard) == 1
