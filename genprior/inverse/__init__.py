"""Solvers of inverse problems: images from a measurement, an operator and a prior."""
