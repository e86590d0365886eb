"""Restoration of image files: paths in, images and JSON sidecars out."""
