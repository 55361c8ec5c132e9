from collections.abc import Hashable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farm.render.buckets import BUCKETS, bucket_of, bucket_within
from farm.render.capacity import FIRST_ROWS, Capacity
from farm.render.remembered import Remembered
from farm.render.requests import Decode, EncodeImage, EncodeText, Predict, Weights
from farm.render.told import Conditioning
from farm.weights.device_errors import is_out_of_memory

CPU = torch.device("cpu")


def row(height: int, width: int, model: str = "m") -> Predict:
    return Predict(Weights(model), torch.empty(4, height, width), 0.0, Conditioning(torch.empty(77, 8)))


@pytest.mark.parametrize(
    ("device", "height", "width", "limit"),
    [
        ("cpu", 8, 8, 16),
        ("cpu", 64, 64, 4),
        ("cpu", 512, 512, 1),
        ("mps", 64, 64, 8),
        ("cuda", 64, 64, 64),
        ("cuda", 96, 64, 32),
    ],
)
def test_larger_pictures_go_in_smaller_batches(device: str, height: int, width: int, limit: int) -> None:
    capacity = Capacity(torch.device(device))
    assert capacity.limit(row(height, width).batch_key) == limit
    assert capacity.limit(Decode(Weights("m"), torch.empty(4, height, width)).batch_key) == limit
    pixels = torch.empty(8 * height, 8 * width, 3, dtype=torch.uint8)
    assert capacity.limit(EncodeImage(Weights("m"), pixels).batch_key) == limit


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
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_knows_out_of_memory(error: Exception, verdict: bool) -> None:
    assert is_out_of_memory(error) is verdict


class Card:
    """A card that says how much is free, and that a batch takes a fixed part and more for each row."""

    name = "card, 8192 MiB"

    def __init__(self, free: int, fixed: int, row: int) -> None:
        self.available, self.fixed, self.row = free, fixed, row

    @property
    def free(self) -> int:
        return self.available


def run(capacity: Capacity, card: Card, key: Hashable, rows: int) -> None:
    computed = bucket_of(rows)
    capacity.note(key, computed, card.fixed + computed * card.row)


def test_the_first_batch_is_small_and_its_measure_sets_the_next_ones() -> None:
    card, key = Card(free=1000, fixed=40, row=10), row(8, 8).batch_key
    capacity = Capacity(torch.device("cuda"), memory=card)
    limits = []
    for _ in range(5):
        limits.append(capacity.limit(key))
        run(capacity, card, key, limits[-1])
    assert limits == [FIRST_ROWS, 32, 64, 64, 64]  # 80 bytes in 4 rows are 20 each, of the next 12 and 11
    card.available = 500
    capacity.room_changed()
    assert capacity.limit(key) == 32


def test_a_batch_that_was_not_full_changes_nothing() -> None:
    card, key = Card(free=1000, fixed=40, row=10), row(8, 8).batch_key
    capacity = Capacity(torch.device("cuda"), memory=card)
    for rows in (4, 32, 64, 1, 2):
        run(capacity, card, key, rows)
    assert capacity.limit(key) == 64


def test_what_was_found_out_is_remembered_for_such_devices_and_for_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, key, other = tmp_path / "cache" / "capacity.json", row(8, 8).batch_key, row(8, 8, "b").batch_key
    card = Card(free=1000, fixed=0, row=10)

    def capacity(device: str = card.name) -> Capacity:
        return Capacity(torch.device("cuda"), memory=card, remembered=Remembered(device, file))

    first = capacity()
    run(first, card, key, 4)
    first.lower(other, 2)
    assert [capacity().limit(key), capacity().limit(other)] == [64, 2]
    assert [capacity("another").limit(key), capacity("another").limit(other)] == [FIRST_ROWS] * 2
    monkeypatch.setattr("farm.render.remembered._today", lambda: 10**6)
    assert [capacity().limit(key), capacity().limit(other)] == [FIRST_ROWS] * 2


def test_weights_that_made_room_are_tried_in_large_batches_again() -> None:
    capacity, key, other = Capacity(CPU, 16), row(8, 8).batch_key, row(8, 8, "other").batch_key
    for lowered in (key, other):
        capacity.lower(lowered, 1)
    capacity.try_more(Weights("m"))
    assert (capacity.limit(key), capacity.limit(other)) == (16, 1)


def test_several_devices_and_workers_share_the_file(tmp_path: Path) -> None:
    file, key, other = tmp_path / "capacity.json", row(8, 8).batch_key, row(8, 8, "other").batch_key
    workers = [Remembered(device, file) for device in ("one", "one", "two")]
    workers[0].lower(key, 4)
    workers[1].lower(other, 2)
    workers[2].lower(key, 8)
    one, two = Remembered("one", file), Remembered("two", file)
    assert [one.most(key), one.most(other), two.most(key), two.most(other)] == [4, 2, 8, None]
    one.forget_lowered(Weights("m"))
    again = Remembered("one", file)
    assert [again.most(key), again.most(other), Remembered("two", file).most(key)] == [None, 2, 8]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"card": 3}', '{"card": {"new": 1}}', '{"card": {"day": "x"}}']
)
def test_a_file_that_is_torn_is_made_again(content: str, tmp_path: Path) -> None:
    file, key = tmp_path / "capacity.json", row(8, 8).batch_key
    file.write_text(content)
    Remembered("card", file).lower(key, 4)
    assert Remembered("card", file).most(key) == 4


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    remembered = Remembered("card", tmp_path / "cache" / "capacity.json")
    remembered.lower(key := row(8, 8).batch_key, 4)
    assert remembered.most(key) == 4


@given(st.integers(1, 500))
def test_buckets_hold_batches_without_much_waste(rows: int) -> None:
    assert bucket_within(rows) <= rows <= bucket_of(rows)
    if rows <= BUCKETS[-1]:
        assert bucket_of(rows) in BUCKETS and bucket_of(rows) < 1.5 * rows or rows <= 2
    assert bucket_of(bucket_of(rows)) == bucket_of(rows)
