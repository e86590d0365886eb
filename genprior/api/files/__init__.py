"""Restores image files: paths in, images and JSON sidecars out."""
