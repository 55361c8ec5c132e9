"""A cell's own noise: it depends on the seed alone, never on the neighbours in the batch."""

import torch


class SeededNoise:
    """Normal numbers from a generator on the CPU, as A1111's `CPU` source and diffusers draw them.

    The first draw makes the initial latents, the following ones are the sampler's, in order of use.
    """

    def __init__(self, seed: int, shape: tuple[int, ...], device: torch.device) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._shape = shape
        self._device = device

    def draw(self) -> torch.Tensor:
        """The next standard normal tensor of the latents' shape, on the device."""
        return torch.randn(self._shape, generator=self._generator).to(self._device, non_blocking=True)
