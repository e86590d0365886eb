"""Padding to a multiple, for fully convolutional networks on images of any size."""

from torch import Tensor, nn


def pad_to_multiple(x: Tensor, multiple: int) -> tuple[Tensor, tuple]:
    """Pads images at the right and bottom to a multiple, by reflection.

    If the image is too small for a reflection, its last pixels are repeated.

    Arguments:
        x: Images, shape (B, C, H, W).
        multiple: Divisor of height and width after padding.

    Returns:
        The padded images and the index that crops them back to H x W.
    """
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    crop = (..., slice(height), slice(width))
    if bottom == right == 0:
        return x, crop
    mode = "reflect" if bottom < height and right < width else "replicate"
    return nn.functional.pad(x, (0, right, 0, bottom), mode=mode), crop
