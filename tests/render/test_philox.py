"""Against Random123's known answers, and against what people's CUDA sessions have printed."""

import numpy as np
import pytest
import torch

from farm.render.philox import PhiloxNormals, philox

KNOWN_ANSWERS = [  # kat_vectors of Random123, philox4x32 10: counter, key, words
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

SEED_0 = """
-0.9247 -0.4253 -2.6438  0.1452 -0.1209 -0.5797 -0.6229 -0.3284
-1.0745 -0.3631 -1.6711  2.2655  0.3117 -0.1842  1.2866  1.1820
-0.1271  1.2169  1.4353  1.0605 -0.4941 -1.4244 -0.7244 -1.2973
 0.0697 -0.0074  1.8969  0.6878 -0.0779 -0.8373  1.3506 -0.2879
-0.5965 -0.3283 -0.9086 -0.8059 -0.7407 -0.0504  0.5435  1.5150
 0.0141  0.4532  1.6349  0.7124 -0.1806  1.0252 -1.4622 -0.7554
-0.1836  0.3824  0.3918 -0.0830  0.8971 -1.1123  0.1116  0.4863
-0.5499 -0.3231 -0.5469  0.9049  0.2837  0.1210  0.4730 -1.0823
"""
SEED_42 = """
 0.1940  2.1614 -0.1721  0.8491 -1.9244  0.6530 -0.6494 -0.8175  0.5280 -1.2753
-1.6621 -0.3033 -0.0926  0.1992 -1.1204  1.8577 -0.7145  0.6881  0.7968
"""
# max(first + second / 2 + third, 0) at seed 0, of the first two draws (8, 8) and a third (8,)
THREE_DRAWS = """
1.7098e+00 0.0000e+00 0.0000e+00 0.0000e+00 6.7049e-01 0.0000e+00 3.4424e-01 1.1223e-02
1.8750e+00 0.0000e+00 0.0000e+00 2.2105e+00 6.6808e-01 0.0000e+00 1.8445e+00 1.9246e+00
2.2614e+00 1.3964e+00 5.1802e-01 2.0114e+00 0.0000e+00 0.0000e+00 2.7715e-01 0.0000e+00
2.4750e+00 0.0000e+00 1.9079e+00 5.4869e-01 3.7923e-01 0.0000e+00 3.1791e+00 6.6843e-01
"""


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def numbers(text: str) -> torch.Tensor:
    return torch.tensor([float(number) for number in text.split()])


@pytest.mark.parity
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter: str, key: str, answer: str) -> None:
    first, second = words(key)
    counters = np.array([words(counter)] * 3, dtype=np.uint32).T
    assert philox(counters, (first, second)).T.tolist() == [words(answer)] * 3


@pytest.mark.parity
@pytest.mark.parametrize(("seed", "printed"), [(0, SEED_0), (42, SEED_42)])
def test_draws_what_cuda_prints(seed: int, printed: str) -> None:
    expected = numbers(printed)
    drawn = PhiloxNormals(seed).draw((len(expected),))
    torch.testing.assert_close(drawn, expected, rtol=0, atol=5.1e-5)


@pytest.mark.parity
def test_draws_with_more_digits() -> None:
    expected = [-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122,
                -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497]  # fmt: skip
    drawn = PhiloxNormals(0).draw((3, 4))
    torch.testing.assert_close(drawn.flatten(), torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parity
def test_each_call_goes_on_as_the_next_call_on_a_card() -> None:
    cuda = PhiloxNormals(0)
    first, second, third = cuda.draw((8, 8)), cuda.draw((8, 8)), cuda.draw((8,))
    combined = (first + second / 2 + third).clamp(min=0)[:4]
    torch.testing.assert_close(combined.flatten(), numbers(THREE_DRAWS), rtol=0, atol=1e-4)


def test_numbers_are_normal_and_all_of_the_seed_counts() -> None:
    drawn = PhiloxNormals(2**63 + 5).draw((4, 128, 128)).double()
    assert drawn.isfinite().all() and abs(drawn.mean()) < 0.01 and abs(drawn.std() - 1) < 0.01
    assert abs((drawn**4).mean() - 3) < 0.15
    assert not torch.equal(drawn, PhiloxNormals(5).draw((4, 128, 128)).double())
