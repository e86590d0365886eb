"""Tools for any PyTorch imaging project: random streams, linear algebra, metrics, devices."""
