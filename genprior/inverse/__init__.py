"""Solvers: from a measurement, an operator and a prior to restored images."""
