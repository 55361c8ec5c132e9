"""The samplers, as generators that read like their papers.

Each takes the noisy latents `x` of shape `(4, height/8, width/8)`, the falling `sigmas` that end in 0 and the
cell's own `noise`; it yields `Denoise` and `Draw` requests and returns the latents. History lives in local
variables; all scalars are host numbers, so that nothing waits for the device. Ports of the algorithms of
k-diffusion (`k_diffusion.sampling.sample_*`), which define what A1111's names mean.
"""

from farm.render.samplers.ddim import ddim, plms
from farm.render.samplers.dpm import dpm_2, dpm_2_ancestral, dpm_adaptive, dpm_fast
from farm.render.samplers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_2s_ancestral, dpmpp_3m_sde, dpmpp_sde
from farm.render.samplers.euler import euler, euler_ancestral
from farm.render.samplers.heun import heun
from farm.render.samplers.lcm import lcm
from farm.render.samplers.lms import lms
from farm.render.samplers.restart import restart
from farm.render.samplers.sampling import SamplerFunction
from farm.render.samplers.unipc import unipc

SAMPLERS: dict[str, SamplerFunction] = {
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpm_2": dpm_2,
    "dpm_2_ancestral": dpm_2_ancestral,
    "dpm_fast": dpm_fast,
    "dpm_adaptive": dpm_adaptive,
    "lms": lms,
    "dpmpp_2s_ancestral": dpmpp_2s_ancestral,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_sde": dpmpp_sde,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "restart": restart,
    "ddim": ddim,
    "plms": plms,
    "unipc": unipc,
    "lcm": lcm,
}
"""By `farm.sampling.Sampler.algorithm`."""
