"""A render farm for Stable Diffusion sweeps."""

__version__ = "0.1.0"
