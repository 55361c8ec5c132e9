"""The normal numbers of PyTorch on an NVIDIA card, computed anywhere.

PyTorch's CUDA generator is Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405; Random123), its
normal numbers are cuRAND's: Box & Muller's transform of two of the four words.
"""

from math import prod

import numpy as np
import numpy.typing as npt
import torch

Words = npt.NDArray[np.uint32]

MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10

UNIT = np.float32(2.0**-32)
UNIT_OF_ANGLE = np.float32(2.0**-32) * np.float32(2 * np.pi)


class PhiloxNormals:
    """What `torch.randn(shape, device="cuda")` draws after `torch.manual_seed(seed)`, call by call.

    On a card each thread takes one number of each tensor from a sequence of its own, and each call moves all
    sequences on by one. That holds while a tensor has no more numbers than the card has threads
    (multiprocessors times threads of each: 125,952 on an RTX 3090, so latents up to 1408×1408 pixels); larger
    tensors are filled in turns there, which depend on the card, and are not emulated. A card's own sine is
    approximate: expect differences of about 1e-6.

    Args:
        seed: modulo 2⁶⁴.
    """

    def __init__(self, seed: int) -> None:
        self._key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
        self._calls = 0

    def draw(self, shape: tuple[int, ...]) -> torch.Tensor:
        """The next standard normal tensor, float32 on the CPU."""
        counter = np.zeros((4, prod(shape)), dtype=np.uint32)
        counter[0], counter[1] = self._calls & 0xFFFFFFFF, self._calls >> 32
        counter[2] = np.arange(prod(shape), dtype=np.uint32)
        self._calls += 1
        words = philox(counter, self._key)
        return torch.from_numpy(normals(words[0], words[1]).reshape(shape))


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10: four random words for each counter.

    Args:
        counter: words `(4, count)`, the lowest first.
        key: two words.

    Returns:
        Words `(4, count)`.
    """
    a, b, c, d = counter
    for step in range(ROUNDS):
        first, second = (np.uint32((word + step * by) & 0xFFFFFFFF) for word, by in zip(key, KEY_STEPS))
        high_a, low_a = _product(a, MULTIPLIERS[0])
        high_c, low_c = _product(c, MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ first, low_c, high_a ^ d ^ second, low_a
    return np.stack((a, b, c, d))


def _product(words: Words, factor: np.uint64) -> tuple[Words, Words]:
    """The upper and the lower half of a product of 64 bits."""
    product = words.astype(np.uint64) * factor
    return (product >> np.uint64(32)).astype(np.uint32), product.astype(np.uint32)


def normals(radius: Words, angle: Words) -> npt.NDArray[np.float32]:
    """cuRAND's Box–Muller transform; of the two numbers that come of it the first, as PyTorch takes it.

    The uniform numbers are rounded to float32 as there, or numbers near 0 would differ.
    """
    uniform = radius.astype(np.float32) * UNIT + UNIT / 2
    turned = angle.astype(np.float32).astype(np.float64) * UNIT_OF_ANGLE + UNIT_OF_ANGLE / 2
    length = np.sqrt(-2 * np.log(uniform.astype(np.float64)))
    drawn: npt.NDArray[np.float64] = length * np.sin(turned.astype(np.float32), dtype=np.float64)
    return drawn.astype(np.float32)
