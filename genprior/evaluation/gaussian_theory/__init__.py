"""Exact laws of samplers for Gaussian priors, and calibration measures."""
