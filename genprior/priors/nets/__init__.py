"""Network architectures and layers that priors share."""
