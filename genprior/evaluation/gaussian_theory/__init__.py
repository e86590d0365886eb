"""Exact output distributions of samplers for Gaussian priors, and calibration tests."""
