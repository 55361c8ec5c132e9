"""LCM: latent consistency models, Luo et al. 2023 (arXiv:2310.04378)."""

from collections.abc import Callable
from itertools import pairwise

import torch

from farm.questions import Denoise, Draw, NoiseSource
from farm.render.samplers.sampling import Sampling, Sigmas, unit_variance

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


def lcm(
    x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource, *, time_at: Callable[[float], float]
) -> Sampling:
    """Multistep consistency sampling: each step jumps to the end, fresh noise leads up to the next sigma.

    A1111 multiplies c_skip with x as it is, where the paper and diffusers have unit variance: from timestep
    19 on less than 2e-7 a step. Pictures start from noise of standard deviation sigma, as in A1111; in
    diffusers from √(sigma² + 1).

    Args:
        x: noisy latents `(4, height/8, width/8)`.
        sigmas: falling, with the final 0.
        noise: the cell's own.
        time_at: the timestep that the network is told of, of the 50 that it was distilled at.
    """
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        draws = (Draw(noise),) if lower > 0 else ()
        denoised, *fresh = yield Denoise(x, sigma, step), *draws
        c_skip, c_out = boundary_scalings(time_at(sigma))
        x = denoised * c_out + unit_variance(x, sigma) * c_skip
        for one in fresh:
            x = x + one * lower
    return x


def boundary_scalings(time: float) -> tuple[float, float]:
    """c_skip and c_out, which make the network's answer at timestep 0 its input."""
    scaled = time * TIMESTEP_SCALING
    total = scaled**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, scaled / total**0.5
