"""Posterior samplers that use a denoiser at many noise levels, one file each."""
