import math
import warnings
from itertools import pairwise

import pytest
import torch

from farm.render.brownian import BrownianNoise
from farm.render.noise import normals
from tests.render.oracles import k_diffusion

CPU = torch.device("cpu")
SHAPE = (4, 6, 5)


def falling(steps: int) -> tuple[float, ...]:
    whole = [14.6146 * (0.0292 / 14.6146) ** (step / (steps - 1)) for step in range(steps)]
    return (*torch.tensor(whole).tolist(), 0.0)


def theirs(seed: int, sigmas: tuple[float, ...]):
    oracle = k_diffusion("sampling").BrownianTreeNoiseSampler
    low, high = (torch.tensor(sigma, dtype=torch.float64) for sigma in (sigmas[-2], sigmas[0]))
    sampler = oracle(torch.zeros((1, *SHAPE)), low, high, seed=seed)
    return lambda *step: sampler(*(torch.tensor(sigma, dtype=torch.float64) for sigma in step))[0]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:Should have t")  # theirs: the tree rounds its ends
@pytest.mark.parametrize(("seed", "steps"), [(0, 5), (3805052747, 20), (2**32 - 1, 9)])
def test_equals_k_diffusions_noise_sampler(seed: int, steps: int) -> None:
    sigmas = falling(steps)
    noise, oracle = BrownianNoise(seed, SHAPE, sigmas, CPU), theirs(seed, sigmas)
    for sigma, lower in pairwise(sigmas[:-1]):
        between = math.sqrt(sigma * lower)  # as DPM++ SDE asks, the half step first
        for step in ((sigma, between), (sigma, lower), (lower, sigma)):
            drawn = noise.draw(*step)
            torch.testing.assert_close(drawn, oracle(*step).float(), rtol=1e-6, atol=1e-7)
            assert drawn.dtype == torch.float32 and drawn.shape == SHAPE


def test_steps_add_up_whatever_was_asked_before() -> None:
    coarse, fine = (
        BrownianNoise(3, SHAPE, (9.0, 1.0, 0.0), CPU),
        BrownianNoise(3, SHAPE, (9.0, 1.0, 0.0), CPU),
    )
    parts = [fine.draw(sigma, lower) * math.sqrt(sigma - lower) for sigma, lower in ((9, 4), (4, 2), (2, 1))]
    torch.testing.assert_close(sum(parts) / math.sqrt(8), coarse.draw(9, 1), rtol=0, atol=1e-5)


def test_one_step_needs_no_path() -> None:
    BrownianNoise(0, SHAPE, (14.6, 0.0), CPU)


def test_asks_between_which_sigmas() -> None:
    with pytest.raises(ValueError, match="between two sigmas"):
        BrownianNoise(0, SHAPE, (14.6, 1.0, 0.0), CPU).draw()


def test_the_ends_of_a_schedule_are_inside_the_path() -> None:
    noise = BrownianNoise(0, SHAPE, (14.61464263, 1.0, 0.02916753, 0.0), CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert noise.draw(14.61464263, 0.02916753).std() > 0.5


def test_numbers_can_be_a_cards_and_do_not_leak() -> None:
    sigmas = falling(4)
    before = BrownianNoise(5, SHAPE, sigmas, CPU).draw(*sigmas[:2])
    asked = []

    def randn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
        asked.append(seed)
        return normals("nv", seed).draw(shape)

    card = BrownianNoise(5, SHAPE, sigmas, CPU, randn)
    drawn = card.draw(*sigmas[:2])
    seen = len(asked)
    assert seen > 2 and not torch.equal(drawn, before)
    assert torch.equal(BrownianNoise(5, SHAPE, sigmas, CPU).draw(*sigmas[:2]), before) and len(asked) == seen
    assert 0.7 < card.draw(sigmas[0], sigmas[-2]).std() < 1.3
