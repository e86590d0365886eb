"""MAP estimation, latent optimisation and Langevin sampling: gradients of an objective."""
