import pytest
import torch

from farm.render.capacity import Capacity, is_out_of_memory
from farm.render.requests import Decode, EncodeText, Predict, Weights

CPU = torch.device("cpu")


def row(height: int, width: int, model: str = "m") -> Predict:
    return Predict(Weights(model), torch.empty(4, height, width), 0.0, torch.empty(77, 8))


@pytest.mark.parametrize(
    ("device", "height", "width", "limit"),
    [("cpu", 8, 8, 16), ("cpu", 64, 64, 4), ("cpu", 512, 512, 1), ("cuda", 64, 64, 64), ("cuda", 96, 64, 42)],
)
def test_larger_pictures_go_in_smaller_batches(device: str, height: int, width: int, limit: int) -> None:
    capacity = Capacity(torch.device(device))
    assert capacity.limit(row(height, width).batch_key) == limit
    assert capacity.limit(Decode(Weights("m"), torch.empty(4, height, width)).batch_key) == limit


def test_texts_count_by_their_number() -> None:
    assert Capacity(CPU, 7).limit(EncodeText(Weights("m"), (1,) * 77, 1).batch_key) == 7


def test_lowering_is_for_one_key_and_never_raises() -> None:
    capacity, tight, other = Capacity(CPU, 16), row(8, 8).batch_key, row(8, 8, "other").batch_key
    for rows, limit in [(8, 8), (12, 8), (2, 2), (0, 1)]:
        capacity.lower(tight, rows)
        assert (capacity.limit(tight), capacity.limit(other)) == (limit, 16)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_knows_out_of_memory(error: Exception, verdict: bool) -> None:
    assert is_out_of_memory(error) is verdict
