"""Image files, arrays and data sets to and from tensors in [0, 1]."""
