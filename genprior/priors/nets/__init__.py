"""Network architectures and layers shared by priors."""
