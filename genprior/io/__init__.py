"""Reading and writing of image files, arrays and data sets as tensors in [0, 1]."""
