"""Runs a solver within memory: tiles, windows, batches; counts evaluations."""
