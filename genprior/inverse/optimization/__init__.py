"""MAP, latent optimisation and Langevin: gradients of an explicit objective."""
