"""Largest accepted image sizes, checked in the header before an image is decoded."""

# The limit of Pillow, above which it reports a decompression bomb.
MAX_PIXELS = 178_956_970
# More pixels than any blur kernel has; a larger file is no kernel, or its header is damaged.
KERNEL_PIXELS = 2**20
