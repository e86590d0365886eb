"""Padding that makes a fully convolutional network take images of any size."""

from torch import Tensor, nn


def pad_to_multiple(x: Tensor, multiple: int) -> tuple[Tensor, tuple]:
    """Extends images at the right and bottom to a multiple, by reflection.

    Where the image is too small to be reflected its last pixels are repeated.

    Arguments:
        x: Images, shape (B, C, H, W).
        multiple: What height and width must be divisible by.

    Returns:
        The extended images and the index that crops them back to H x W.
    """
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    crop = (..., slice(height), slice(width))
    if bottom == right == 0:
        return x, crop
    mode = "reflect" if bottom < height and right < width else "replicate"
    return nn.functional.pad(x, (0, right, 0, bottom), mode=mode), crop
