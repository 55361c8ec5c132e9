from typing import Any

import pytest
import torch

from farm.errors import CellFailed
from farm.questions import Denoise
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


def test_a_sampler_that_is_right_is_passed_on() -> None:
    assert torch.equal(drive(named("Mine", lambda: euler(X), X.shape), bent)[0], drive(euler(X), bent)[0])


@pytest.mark.parametrize(
    ("algorithm", "reason"),
    [
        (forgetful, "returned nothing; the latents are wanted"),
        (hasty, "failed: TypeError: unsupported operand"),
        (plain, "gave a Tensor where it should yield questions"),
        (clumsy, r"returned latents \(2, 2\) for \(4, 2, 2\)"),
        (late, "failed: ZeroDivisionError: sigma is 0"),
        (at_once, "failed: ZeroDivisionError: no time"),
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
