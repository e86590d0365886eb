"""Diffusion solvers: a denoiser is evaluated at many noise levels; one file per solver."""
