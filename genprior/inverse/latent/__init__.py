"""Solvers for latent diffusion: a denoiser of latents and a decoder."""
