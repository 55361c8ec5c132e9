"""k-diffusion's view of a checkpoint, for the references that are run on real networks."""

from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler

from farm.cell import Settings
from farm.sampling import Sampler
from farm.weights.checkpoint import Networks
from tests.render.oracles import k_diffusion
from tests.render.rendering import prompt_states


@torch.inference_mode()
def k_diffusion_model(wanted: Settings, networks: Networks) -> Any:
    """Its denoiser over the UNet; a batch of two has the negative prompt first."""
    states = torch.cat([prompt_states(networks, text) for text in (wanted.negative_prompt, wanted.prompt)])
    alphas = DDPMScheduler.from_config(networks.scheduler_config).alphas_cumprod
    return k_diffusion("external").DiscreteEpsDDPMDenoiser(
        lambda x, t: networks.unet(x, t, encoder_hidden_states=states).sample, alphas, quantize=False
    )


def with_guidance(model: Any, wanted: Settings, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    without, with_prompt = model(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
    return without + wanted.cfg_scale * (with_prompt - without)


@torch.inference_mode()
def decoded(latents: torch.Tensor, networks: Networks) -> np.ndarray:
    """The picture `(height, width, 3)` of latents `(1, 4, height/8, width/8)`."""
    picture = networks.vae.decode(latents / networks.vae.config.scaling_factor).sample[0]
    return ((picture / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()


def k_diffusion_sigmas(row: Sampler, wanted: Settings, model: Any) -> torch.Tensor:
    steps = wanted.steps + row.discards_next_to_last_sigma
    if wanted.schedule == "uniform":
        sigmas = model.get_sigmas(steps)
    else:
        function = getattr(k_diffusion("sampling"), f"get_sigmas_{wanted.schedule}")
        sigmas = function(steps, float(model.sigma_min), float(model.sigma_max))
    return torch.cat([sigmas[:-2], sigmas[-1:]]) if row.discards_next_to_last_sigma else sigmas
