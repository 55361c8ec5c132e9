from dataclasses import replace
from typing import Any

import pytest
import torch

from farm.cell import Settings
from farm.questions import NoiseSource
from farm.render.brownian import BrownianNoise
from farm.render.noise import CellNoise, SeededNoise, in_the_middle, normals, slerp
from farm.sampling import BUILT_IN

CPU = torch.device("cpu")
SHAPE = (4, 8, 6)
SETTINGS = Settings(model="m", prompt="", width=48, height=64, seed=42)
SIGMAS = (14.6, 3.0, 0.03, 0.0)

both = pytest.mark.parametrize("rng", ["cpu", "nv"])


def cell(**changes: Any) -> CellNoise:
    return CellNoise(replace(SETTINGS, **changes), SHAPE, CPU)


def initial(**changes: Any) -> torch.Tensor:
    return cell(**changes).initial.draw()


def of_sampler(noise: CellNoise, name: str = "Euler a") -> NoiseSource:
    return noise.for_sampler(BUILT_IN[name], SIGMAS)


def test_draws_are_those_of_a_generator_with_the_seed() -> None:
    noise, generator = SeededNoise(42, SHAPE, CPU), torch.Generator().manual_seed(42)
    for _ in range(3):
        assert torch.equal(noise.draw(), torch.randn((1, *SHAPE), generator=generator)[0])


def test_neighbours_do_not_disturb_it() -> None:
    alone = SeededNoise(1, (4, 2, 2), CPU)
    expected = [alone.draw(), alone.draw()]
    one, other = SeededNoise(1, (4, 2, 2), CPU), SeededNoise(2, (4, 2, 2), CPU)
    drawn = [one.draw()]
    torch.manual_seed(0)
    assert not torch.equal(other.draw(), drawn[0])
    drawn.append(one.draw())
    assert all(map(torch.equal, drawn, expected))


@both
def test_the_sampler_goes_on_where_the_initial_noise_ended(rng: str) -> None:
    noise, generator = cell(rng=rng), normals(rng, 42)
    drawn = [noise.initial.draw(), of_sampler(noise).draw(), of_sampler(noise, "DPM2 a").draw()]
    assert all(torch.equal(one, generator.draw(SHAPE)) for one in drawn)


@both
@pytest.mark.parametrize("delta", [31337, -50, 2**64 - 1])
def test_a_seed_delta_is_for_the_samplers_noise_alone(rng: str, delta: int) -> None:
    noise = cell(rng=rng, eta_noise_seed_delta=delta)
    assert torch.equal(noise.initial.draw(), initial(rng=rng))
    assert torch.equal(of_sampler(noise).draw(), normals(rng, 42 + delta).draw(SHAPE))


@pytest.mark.parametrize("delta", [0, 31337])
def test_a_brownian_path_has_the_seed_without_delta(delta: int) -> None:
    drawn = of_sampler(cell(eta_noise_seed_delta=delta), "DPM++ SDE").draw(14.6, 3.0)
    assert torch.equal(drawn, BrownianNoise(42, SHAPE, SIGMAS, CPU).draw(14.6, 3.0))
    on_a_card = of_sampler(cell(eta_noise_seed_delta=delta, rng="nv"), "DPM++ SDE").draw(14.6, 3.0)
    assert not torch.equal(drawn, on_a_card)


@both
def test_a_variation_is_between_two_noises_at_the_same_distance_from_zero(rng: str) -> None:
    ends = initial(rng=rng), initial(rng=rng, seed=7)
    mixed = {
        strength: initial(rng=rng, variation_seed=7, variation_strength=strength) for strength in (0, 0.4, 1)
    }
    assert torch.equal(mixed[0], ends[0])
    torch.testing.assert_close(mixed[1], ends[1], rtol=0, atol=1e-5)
    low, high = (end.double() for end in ends)
    # Shoemake's formula, for each column of each channel
    omega = torch.acos((low * high).sum(1) / (low.norm(dim=1) * high.norm(dim=1)))
    expected = torch.stack(
        [
            torch.sin(0.6 * omega) / torch.sin(omega) * low[:, row]
            + torch.sin(0.4 * omega) / torch.sin(omega) * high[:, row]
            for row in range(SHAPE[1])
        ],
        dim=1,
    )
    torch.testing.assert_close(mixed[0.4].double(), expected, rtol=0, atol=1e-5)


def test_nearly_equal_noise_is_mixed_in_the_right_direction() -> None:
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    end = start + 0.001
    torch.testing.assert_close(slerp(start, end, 0.25), start + 0.00025, rtol=0, atol=1e-6)
    assert torch.equal(initial(variation_seed=42, variation_strength=0.3), initial())


def test_columns_of_one_number_have_no_angle() -> None:
    start, end = (torch.randn((4, 1, 6), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert slerp(start, end, 0.5).isfinite().all()
    assert torch.equal(slerp(start, end, 0.0), start)


@both
def test_noise_of_a_smaller_picture_becomes_the_middle_of_a_larger(rng: str) -> None:
    small = {"seed_resize_from_width": 32, "seed_resize_from_height": 48, "rng": rng}
    noise = cell(**small)
    expected = initial(rng=rng).clone()
    expected[:, 1:7, 1:5] = normals(rng, 42).draw((4, 6, 4))
    assert torch.equal(noise.initial.draw(), expected)
    whole = normals(rng, 42)
    whole.draw(SHAPE)
    assert torch.equal(of_sampler(noise).draw(), whole.draw(SHAPE))
    varied = initial(**small, variation_seed=7, variation_strength=0.5)
    inner = slerp(normals(rng, 42).draw((4, 6, 4)), normals(rng, 7).draw((4, 6, 4)), 0.5)
    assert torch.equal(varied[:, 1:7, 1:5], inner)
    assert torch.equal(varied[:, 0], initial(rng=rng)[:, 0])


def test_noise_of_a_larger_picture_is_cropped() -> None:
    larger = normals("cpu", 42).draw((4, 12, 10))
    assert torch.equal(initial(seed_resize_from_width=80, seed_resize_from_height=96), larger[:, 2:10, 2:8])


@pytest.mark.parametrize("given", range(1, 14))
@pytest.mark.parametrize("size", [6, 7])
def test_where_noise_of_another_size_is_laid(size: int, given: int) -> None:
    ground, noise = torch.zeros(1, size, 1), torch.arange(1, given + 1).float().view(1, given, 1)
    laid = in_the_middle(noise, ground).flatten().tolist()
    free = [index for index, value in enumerate(laid) if value == 0]
    kept = [value for value in laid if value]
    assert kept == list(range(int(kept[0]), int(kept[0]) + len(kept)))
    if given <= size:
        assert len(kept) == given and laid.index(1) == (size - given) // 2
    else:  # A1111 rounds down twice: of an odd difference one point stays as it was
        assert kept[0] - 1 == (given - size + 1) // 2 and free == [size - 1] * ((given - size) % 2)


@pytest.mark.parametrize("side", ["seed_resize_from_width", "seed_resize_from_height"])
def test_one_side_alone_resizes_nothing(side: str) -> None:
    assert torch.equal(initial(**{side: 16}), initial())


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"rng": "nv"},
        {"variation_seed": 3, "variation_strength": 0.5},
        {"seed_resize_from_width": 8, "seed_resize_from_height": 8},
    ],
    ids=str,
)
def test_the_key_names_what_the_initial_noise_depends_on(change: dict[str, Any]) -> None:
    assert cell().key == cell(steps=3, sampler="DDIM", eta_noise_seed_delta=9).key
    assert cell(**change).key != cell().key and not torch.equal(initial(**change), initial())


def test_foreign_samplers_are_given_the_generator_that_draws() -> None:
    noise, expected = cell(), torch.Generator().manual_seed(42)
    assert torch.equal(noise.initial.draw(), torch.randn(SHAPE, generator=expected))
    drawn = torch.randn(SHAPE, generator=noise.generator)
    assert torch.equal(drawn, torch.randn(SHAPE, generator=expected))


@both
def test_foreign_samplers_draw_with_the_seed_delta(rng: str) -> None:
    generator = cell(eta_noise_seed_delta=9, rng=rng).generator
    assert torch.equal(torch.randn(SHAPE, generator=generator), normals("cpu", 51).draw(SHAPE))
