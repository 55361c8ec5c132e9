from typing import Any

import pytest
import torch

from farm.errors import CellFailed
from farm.questions import Denoise, Output, Read
from farm.render.samplers.added import named
from tests.render.oracles import bent, drive

X = torch.ones(4, 2, 2)


def euler(x: torch.Tensor) -> Any:
    denoised = yield Denoise(x, 1.0, 0)
    return x + (denoised - x) / 2


def forgetful(x: torch.Tensor) -> Any:
    yield Denoise(x, 1.0, 0)


def hasty(x: torch.Tensor) -> Any:
    return x - Denoise(x, 1.0, 0)


def plain(x: torch.Tensor) -> Any:
    return x / 2


def clumsy(x: torch.Tensor) -> Any:
    denoised = yield Denoise(x, 1.0, 0)
    return denoised.mean(0)


def late(x: torch.Tensor) -> Any:
    yield Denoise(x, 1.0, 0)
    raise ZeroDivisionError("sigma is 0")


def at_once(x: torch.Tensor) -> Any:
    raise ZeroDivisionError("no time")


def silent(x: torch.Tensor) -> Any:
    yield None


def chatty(x: torch.Tensor) -> Any:
    yield Denoise(x, 1.0, 0), "and then?"


def numeric(x: torch.Tensor) -> Any:
    yield Denoise(0.5, 1.0, 0)  # type: ignore[arg-type]


def narrow(x: torch.Tensor) -> Any:
    yield Output(x[0], 1.0, 0)


def full(x: torch.Tensor) -> Any:
    yield Denoise(x, 1.0, 0)
    raise torch.OutOfMemoryError("the device is full")


def lost(x: torch.Tensor) -> Any:
    yield Denoise(x, 1.0, 0)
    raise torch.AcceleratorError("an illegal memory access was encountered")


def wide(x: torch.Tensor) -> Any:
    yield Read(x)


def reading(x: torch.Tensor) -> Any:
    length = yield Read(x.norm())
    return x / length


def test_a_sampler_may_read_a_number_back() -> None:
    latents, _ = drive(named("Mine", lambda: reading(X), X.shape), bent)
    assert torch.equal(latents, X / float(X.norm()))


def test_a_device_that_is_lost_is_no_fault_of_the_sampler() -> None:
    with pytest.raises(torch.AcceleratorError):
        drive(named("Mine", lambda: lost(X), X.shape), bent)


def test_memory_that_runs_out_is_the_engines_to_deal_with() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        drive(named("Mine", lambda: full(X), X.shape), bent)


def test_a_sampler_that_is_right_is_passed_on() -> None:
    assert torch.equal(drive(named("Mine", lambda: euler(X), X.shape), bent)[0], drive(euler(X), bent)[0])


@pytest.mark.parametrize(
    ("algorithm", "reason"),
    [
        (forgetful, r"returned nothing, not latents \(4, 2, 2\)"),
        (hasty, "failed: TypeError: unsupported operand"),
        (plain, r"gave a Tensor \(4, 2, 2\) where it should yield questions"),
        (clumsy, r"returned a Tensor \(2, 2\), not latents \(4, 2, 2\)"),
        (late, "failed: ZeroDivisionError: sigma is 0"),
        (at_once, "failed: ZeroDivisionError: no time"),
        (silent, "failed: TypeError: it yields nothing, not Denoise, Output, Draw or Read"),
        (chatty, "failed: TypeError: it yields a str, not"),
        (numeric, r"failed: TypeError: it asks about a float, not latents \(4, 2, 2\)"),
        (wide, r"failed: TypeError: it reads a Tensor \(4, 2, 2\), not a tensor of one number"),
        (narrow, r"failed: TypeError: it asks about a Tensor \(2, 2\), not latents \(4, 2, 2\)"),
    ],
)
def test_what_is_wrong_with_a_sampler_names_it(algorithm: Any, reason: str) -> None:
    with pytest.raises(CellFailed, match=f"^sampler 'Mine' {reason}"):
        drive(named("Mine", lambda: algorithm(X), X.shape), bent)


def test_what_is_thrown_from_outside_is_not_the_samplers_fault() -> None:
    sampling = named("Mine", lambda: euler(X), X.shape)
    next(sampling)
    with pytest.raises(MemoryError):
        sampling.throw(MemoryError("the device is full"))
