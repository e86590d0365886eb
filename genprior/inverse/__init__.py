"""Solvers p(x | y): from a measurement, an operator and a prior to restored images."""
