"""DDIM and PLMS, as CompVis wrote them for latent diffusion.

CompVis keeps the latents at unit variance, x/√(sigma² + 1) of ours; so both return them in that scale at the
last sigma, which is 0 only if another schedule than their own says so.
"""

import math
from itertools import pairwise

import torch

from farm.questions import Denoise, Draw, NoiseSource
from farm.render.samplers.sampling import Sampling, Sigmas, ancestral_step, unit_variance

PLMS_WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Adams–Bashforth's for even steps, newest slope first."""


def ddim(x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource, *, eta: float = 0.0) -> Sampling:
    """Song et al. 2020 (arXiv:2010.02502), equation 12.

    Its sigma_t, in our scale of the latents, is the noise of an ancestral step: eta 0 is Euler's method and
    eta 1 Euler a. CompVis draws noise at eta 0 too, and multiplies it by 0.
    """
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        sigma_down, sigma_up = ancestral_step(sigma, lower, eta)
        draws = (Draw(noise),) if sigma_up > 0 else ()
        denoised, *fresh = yield Denoise(x, sigma, step), *draws
        slope = (x - denoised) / sigma
        x = x + slope * (sigma_down - sigma)
        for one in fresh:
            x = x + one * sigma_up
    return unit_variance(x, sigmas[-1])


def plms(x: torch.Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Liu et al. 2022 (arXiv:2202.09778), pseudo linear multistep, begun by a step of Heun's method.

    The weights are those of even steps whatever the sigmas. A lone step has no next timestep, and is
    corrected at its own, as CompVis's is.
    """
    slopes: list[torch.Tensor] = []
    for step, (sigma, lower) in enumerate(pairwise(sigmas)):
        slopes = [(x - (yield Denoise(x, sigma, step))) / sigma, *slopes][: len(PLMS_WEIGHTS)]
        weights = PLMS_WEIGHTS[len(slopes) - 1]
        slope = torch.stack([weight * one for weight, one in zip(weights, slopes, strict=True)]).sum(0)
        if step == 0:
            following = lower if len(sigmas) > 2 else sigma
            ahead = unit_variance(x + slope * (lower - sigma), lower) * math.sqrt(following**2 + 1)
            slope = (slope + (ahead - (yield Denoise(ahead, following, step))) / following) / 2
        x = x + slope * (lower - sigma)
    return unit_variance(x, sigmas[-1])
