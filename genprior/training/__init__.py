"""Training of a prior: loop, state, optimisers, crops, log."""
