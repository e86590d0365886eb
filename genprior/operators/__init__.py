"""Operators: what the measurement did to the image, one file each."""
