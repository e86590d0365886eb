"""How large a picture may be; larger ones are refused by their header, before they take memory."""

# What Pillow refuses as a decompression bomb.
MAX_PIXELS = 178_956_970
# More than any blur kernel has: a picture, or a damaged header.
KERNEL_PIXELS = 2**20
