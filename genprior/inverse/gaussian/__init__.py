"""Exact posterior mean and samples for Gaussian priors."""
