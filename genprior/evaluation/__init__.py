"""Evaluation of priors, solvers and baselines on a data set, with report and tables."""
