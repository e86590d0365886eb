"""General PyTorch imaging tools: random streams, linear algebra, metrics, devices."""
