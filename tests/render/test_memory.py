"""How much a card has, as PyTorch is asked for it: the way into its C++ is played, the rest is its own."""

from typing import Any

import pytest
import torch

from farm.render.memory import Memory

GIB = 2**30


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The second of two cards, the current one."""
    said = {"allocated": 3.0 * GIB, "reserved": 4.0 * GIB, "free": 10.0 * GIB, "total": 16.0 * GIB}

    def fraction(index: int) -> float:
        assert index == 1
        return 0.75

    def info(index: int) -> tuple[int, int]:
        assert index == 1
        return int(said["free"]), int(said["total"])

    def stats(index: int) -> dict[str, Any]:
        assert index == 1
        kinds = {"allocated_bytes": said["allocated"], "reserved_bytes": said["reserved"]}
        return {kind: {"all": {"current": int(count), "peak": int(count)}} for kind, count in kinds.items()}

    class Runtime:
        def cudaMemGetInfo(self, index: int) -> tuple[int, int]:
            return info(index)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda.memory, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 1, raising=False)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "cudart", Runtime)
    monkeypatch.setattr(torch._C, "_cuda_getMemoryFraction", fraction, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_memoryStats", stats, raising=False)
    return said


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_what_is_free_on_a_card_with_and_without_its_number(name: str, card: dict[str, float]) -> None:
    memory = Memory(torch.device(name))
    assert memory.total == 12 * GIB  # the fraction that this process may have
    assert memory.free == 9 * GIB  # less than the card has free, with what PyTorch keeps
    card["free"] = 2.0 * GIB
    assert memory.free == 3 * GIB


def test_nobody_knows_what_is_free_on_the_host() -> None:
    memory = Memory(torch.device("cpu"))
    assert (memory.total, memory.free, memory.name) == (None, None, "")
    memory.give_back()
