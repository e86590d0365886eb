"""Measures priors, solvers and baselines on a data set; report and tables."""
