"""The eight flips and quarter turns of an image."""

from torch import Tensor


def turn(x: Tensor, k: int) -> Tensor:
    """Number k (modulo 8) of the flips and quarter turns of images (B, C, H, W)."""
    x = x.rot90(k % 4, (-2, -1))
    return x.flip(-1) if k % 8 >= 4 else x


def turn_back(x: Tensor, k: int) -> Tensor:
    """Inverse of `turn`."""
    x = x.flip(-1) if k % 8 >= 4 else x
    return x.rot90(-(k % 4), (-2, -1))
