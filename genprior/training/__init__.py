"""Trains a prior: loop, state, optimisers, crops, log."""
