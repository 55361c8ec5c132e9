"""Trains the demonstration model: a small latent diffusion model that draws cartoon cats."""
