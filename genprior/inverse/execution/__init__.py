"""Memory-limited execution of solvers: tiles, windows, batches, counts of evaluations."""
