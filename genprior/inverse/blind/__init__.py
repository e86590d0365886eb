"""Blind deconvolution: estimation of the blur kernel of an image."""
