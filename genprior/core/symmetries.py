"""The eight flips and quarter turns of images."""

from torch import Tensor


def turn(x: Tensor, k: int) -> Tensor:
    """Applies flip or quarter turn number k (modulo 8) to images (B, C, H, W).

    It makes k % 4 quarter turns and then, where k % 8 >= 4, a flip from left to right.
    """
    x = x.rot90(k % 4, (-2, -1))
    return x.flip(-1) if k % 8 >= 4 else x


def turn_back(x: Tensor, k: int) -> Tensor:
    """Applies the inverse of `turn`."""
    x = x.flip(-1) if k % 8 >= 4 else x
    return x.rot90(-(k % 4), (-2, -1))
