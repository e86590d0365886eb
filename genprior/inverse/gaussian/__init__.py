"""The exact posterior of Gaussian priors."""
