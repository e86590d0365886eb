"""Point estimates with a denoiser as the prior, one file each."""
