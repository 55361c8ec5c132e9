from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
import torch

from farm.render.samplers.restart import restart, restart_ways
from farm.sampling import BUILT_IN
from tests.render.oracles import Denoiser, Recorded, bent, drive, k_diffusion
from tests.render.unit_variance import SHAPE, every_grid, grids, noise_for

Sigmas = tuple[float, ...]


def ours(sigmas: Sigmas, *draws: torch.Tensor, s_noise: float = 1.0) -> torch.Tensor:
    first, *others = draws
    return drive(restart(first * sigmas[0], sigmas, Recorded(others), s_noise=s_noise), bent)[0]


def karras(steps: int, low: float, high: float) -> Sigmas:
    """Rounded to float32, as schedules are."""
    return tuple(float(one) for one in np.float32(np.linspace(high ** (1 / 7), low ** (1 / 7), steps) ** 7))


def path(sigmas: Sigmas) -> Sigmas:
    """Every sigma that A1111's Restart goes through, in order, up and down."""
    steps = len(sigmas) - 1
    if steps < 20:
        return sigmas
    again, times = (9, 1) if steps < 36 else (steps // 4, 2)
    base = np.array([*karras(steps - again * times, sigmas[-2], sigmas[0]), sigmas[-1]])
    bottom, top = np.abs(base - 0.1).argmin(), np.abs(base - 2).argmin()
    assert top < bottom
    loop = karras(again + 1, base[bottom], base[top])
    return (*map(float, base[: bottom + 1]), *loop * times, *map(float, base[bottom + 1 :]))


def reference(
    sigmas: Sigmas, *draws: torch.Tensor, s_noise: float = 1.0, denoiser: Denoiser = bent
) -> torch.Tensor:
    """Along the path: down by Heun's method, up by noise."""
    first, *others = draws
    x, noises = first * sigmas[0], iter(others)

    def to_d(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return (x - denoiser(x, sigma)) / sigma

    for here, there in pairwise(path(sigmas)):
        if there > here:
            x = x + next(noises) * s_noise * (there**2 - here**2) ** 0.5
        elif there == 0:
            x = x + to_d(x, here) * (there - here)
        else:
            d = to_d(x, here)
            x = x + (d + to_d(x + d * (there - here), there)) / 2 * (there - here)
    return x


@pytest.mark.parity
@pytest.mark.parametrize("steps", [20, 21, 35, 36, 37, 50])
@every_grid
def test_equals_the_algorithm_written_out(grid: str, steps: int) -> None:
    sigmas, draws = grids(steps)[grid], noise_for(3)
    for s_noise in (1.0, 1.1):
        theirs = reference(sigmas, *draws, s_noise=s_noise)
        torch.testing.assert_close(ours(sigmas, *draws, s_noise=s_noise), theirs, rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 19])
@every_grid
def test_equals_k_diffusions_heun_below_20_steps(grid: str, steps: int) -> None:
    sigmas, [first] = grids(steps)[grid], noise_for(1)
    theirs = k_diffusion("sampling").sample_heun(
        lambda x, sigma: bent(x, sigma.view(-1, 1, 1, 1)),
        first * sigmas[0],
        torch.tensor(sigmas, dtype=torch.float64),
        disable=True,
    )
    torch.testing.assert_close(ours(sigmas, first), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [*range(1, 60), 150])
def test_asks_as_often_as_the_plan_says(steps: int) -> None:
    first, *others = noise_for(3)
    sigmas, noise = grids(steps)["karras"], Recorded(others)
    asked = drive(restart(first, sigmas, noise), bent)[1]
    assert len(asked) == BUILT_IN["Restart"].evaluations(steps)
    assert sorted({question.step for question in asked}) == list(range(steps))
    assert asked[0].x is first and asked[0].sigma == np.float32(sigmas[0])
    assert len(list(noise._draws)) == (2 if steps < 20 else 1 if steps < 36 else 0)


@pytest.mark.parity
@pytest.mark.parametrize("steps", [20, 40])
@pytest.mark.parametrize("left", [0, 1, 5, 19])
def test_begins_anywhere(steps: int, left: int) -> None:
    """Starts below the interval too, where nothing is gone through again."""
    first, *others = noise_for(3)
    whole = grids(steps + left)["karras"]
    shortened = whole[left:]
    theirs = reference(shortened, first, *others)
    torch.testing.assert_close(ours(shortened, first, *others), theirs, rtol=0, atol=1e-6)
    for sigmas in (shortened, grids(500)["uniform"][-steps - 1 :]):
        x, asked = drive(restart(first * sigmas[0], sigmas, Recorded(others)), bent)
        assert len(asked) == 2 * steps - 1 and torch.isfinite(x).all()


def test_goes_from_about_2_to_about_a_tenth_again() -> None:
    first, again = restart_ways(grids(30)["karras"])
    assert first[0] == pytest.approx(14.6146, abs=1e-4) and again[-1] == 0
    assert first[-1] == again[9] == pytest.approx(0.1, rel=0.3) and again[0] in first
    assert again[0] == pytest.approx(2, rel=0.3)


def test_below_the_interval_all_sigmas_are_gone_through_once() -> None:
    sigmas = tuple(0.09 * (1 - step / 25) for step in range(26))
    assert restart_ways(sigmas) == [sigmas]


def test_noise_comes_with_the_question_before_it() -> None:
    sampling = restart(torch.ones(SHAPE), grids(20)["karras"], Recorded([]))
    asked, answer = [], None
    with suppress(StopIteration):
        while True:
            asked.append(sampling.send(answer))
            together = isinstance(asked[-1], tuple)
            answer = [torch.zeros(SHAPE)] * len(asked[-1]) if together else torch.zeros(SHAPE)
    assert len(asked) == 2 * 20 - 1  # no round for the noise alone
    assert [len(one) for one in asked if isinstance(one, tuple)].count(2) == 1
