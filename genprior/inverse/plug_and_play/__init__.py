"""Plug-and-play point estimates: a denoiser is the prior; one method per file."""
