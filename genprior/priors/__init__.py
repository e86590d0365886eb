"""Priors: models of what images look like, one file each."""
