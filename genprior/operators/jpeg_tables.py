"""Quantisation tables and samplings of JPEG.

References:
    ITU-T Recommendation T.81, 1992 (Annex K), scaled as the Independent JPEG Group does.
"""

import torch
from torch import Tensor

from genprior.core.errors import SettingError

SIZE = 8
# Luma pixels per chroma pixel (rows, columns), by the usual name of the sampling.
SAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:4:0": (2, 1), "4:2:0": (2, 2)}
# Luma of red, green and blue (ITU-R BT.601), as Pillow and OpenCV convert to grey.
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)
CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *[99] * 32,
)


def standard_tables(quality: int) -> Tensor:
    """Returns the luma and chroma tables of libjpeg, shape (2, 8, 8).

    Arguments:
        quality: 1 (worst) to 100.

    Raises:
        SettingError: It is not such a number.

    >>> standard_tables(50)[0, 0].int().tolist()
    [16, 11, 10, 16, 24, 40, 51, 61]
    """
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise SettingError(f"the JPEG quality must be a whole number from 1 to 100, got {quality}")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = torch.tensor([LUMA, CHROMA]).reshape(2, SIZE, SIZE)
    return ((tables * percent + 50) // 100).clamp(1, 255).float()


def nearest_quality(luma: Tensor) -> int:
    """Returns the quality, 1 to 100, whose standard table is nearest to a luma table (8, 8).

    >>> nearest_quality(standard_tables(86)[0])
    86
    """
    logarithm = luma.float().cpu().log()
    return min(
        range(100, 0, -1),
        key=lambda q: (standard_tables(q)[0].log() - logarithm).abs().sum().item(),
    )
