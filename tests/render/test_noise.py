import torch

from farm.render.noise import SeededNoise

CPU = torch.device("cpu")


def test_draws_are_those_of_a_generator_with_the_seed() -> None:
    noise, generator = SeededNoise(42, (4, 8, 6), CPU), torch.Generator().manual_seed(42)
    for _ in range(3):
        assert torch.equal(noise.draw(), torch.randn((1, 4, 8, 6), generator=generator)[0])


def test_neighbours_do_not_disturb_it() -> None:
    alone = SeededNoise(1, (4, 2, 2), CPU)
    expected = [alone.draw(), alone.draw()]
    one, other = SeededNoise(1, (4, 2, 2), CPU), SeededNoise(2, (4, 2, 2), CPU)
    drawn = [one.draw()]
    torch.manual_seed(0)
    assert not torch.equal(other.draw(), drawn[0])
    drawn.append(one.draw())
    assert all(map(torch.equal, drawn, expected))
