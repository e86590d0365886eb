"""Largest accepted image sizes, checked in the header before an image is decoded, and counts."""

# The limit of Pillow, above which it reports a decompression bomb.
MAX_PIXELS = 178_956_970
# More pixels than any blur kernel has; a larger file is no kernel, or its header is damaged.
KERNEL_PIXELS = 2**20
# More pixels than the side of any image has.
MAX_SIDE = 1_000_000
# More samples or steps than any computation takes; lists of them are made in advance.
MAX_SAMPLES, MAX_STEPS = 100_000, 1_000_000
