"""Generative priors p(x), one file each, their networks, checkpoints and shipped weights."""
