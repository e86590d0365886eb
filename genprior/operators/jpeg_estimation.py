"""Estimation of the JPEG quality, the chroma sampling and the block grid from pixels.

If an image came through JPEG, the DCT coefficients of its blocks lie near multiples of the
quantisation steps q, with a small error by rounding to 8 bits. The log-likelihood ratio of that
against coefficients anywhere,

    L = mean of log( (1 - o) q sum_k N(c - q k; s) + o ),

over the coefficients c that are not near 0, is largest for the tables and the grid that were
used. Coefficients that clipping has changed count as outliers, with the share o. The sampling of
the chroma is the one that gives the same pixels when they are coded and decoded again.

References:
    Identification of Bitmap Compression History: JPEG Detection and Quantizer Estimation, Fan and
        de Queiroz, 2003.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from genprior.operators.jpeg import JPEG
from genprior.operators.jpeg_tables import SAMPLINGS, SIZE, standard_tables

# Error of the coefficients, in grey levels, and the share of outliers.
ERROR_STD, OUTLIERS = 0.5, 0.1
# Smaller coefficients are near 0 in any smooth image.
NEAR_ZERO = 2.0
# Largest side of the central window that is used, in pixels.
WINDOW = 1024
# Least likelihood ratio per coefficient, and least number of coefficients, of a trace of JPEG.
LEAST_RATIO, LEAST_COUNT = 0.25, 50
# Errors of decoding that differ by less are equally good.
SIMILAR = 1.05


@dataclass(frozen=True)
class Fit:
    """The coding that explains the pixels of an image best.

    Attributes:
        quality: Of the standard tables, 1 to 100.
        sampling: Name of the chroma sampling.
        offset: Row and column of the first pixel in its block, see `JPEG`.
        ratio: L of the luma.
    """

    quality: int
    sampling: str
    offset: tuple[int, int]
    ratio: float


def estimate_coding(
    image: Tensor, quality: int | None = None, sampling: str = "auto"
) -> Fit | None:
    """Returns the coding of the JPEG that an image was; None if there is no trace of one.

    Arguments:
        image: One image (1, C, H, W) in [0, 1], C = 1 or 3.
        quality: The quality, if it is known; there is always a result then.
        sampling: The sampling, if it is known.
    """
    height, width = image.shape[-2:]
    top, left = (max(0, (side - WINDOW) // 32 * 16) for side in (height, width))
    seen = image[..., top : top + WINDOW, left : left + WINDOW]  # in whole blocks of any sampling
    qualities = range(1, 101) if quality is None else (quality,)
    best = _best_luma(seen, (0, 0), qualities)
    if best[0] < LEAST_RATIO:
        offset = _grid(seen)
        other = _best_luma(seen, offset, qualities) if offset != (0, 0) else best
        best = max(best, other)
    ratio, found, offset = best
    if ratio < LEAST_RATIO and quality is None:
        return None
    chosen, offset = _best_chroma(seen, found, offset, sampling)
    return Fit(found, chosen, offset, ratio)


def _best_luma(
    image: Tensor, offset: tuple[int, int], qualities: range | tuple[int, ...]
) -> tuple[float, int, tuple[int, int]]:
    """Returns the largest L of the luma, with the quality, and the offset."""
    operator = JPEG(50, "4:4:4", offset)
    c = operator.whole_coefficients(image, 0)
    found = [
        (likelihood_ratio(c, standard_tables(quality)[0]), quality) for quality in qualities
    ]
    return *max(found), offset


def _grid(image: Tensor) -> tuple[int, int]:
    """Returns the offset for which most coefficients of the luma are near 0."""
    shares = {}
    for offset in product(range(SIZE), repeat=2):
        c = JPEG(50, "4:4:4", offset).whole_coefficients(image, 0)
        shares[offset] = (c.abs() < NEAR_ZERO / 2).float().mean().item() if c.numel() else 0.0
    return max(shares, key=lambda offset: shares[offset])


def _best_chroma(
    image: Tensor, quality: int, offset: tuple[int, int], sampling: str
) -> tuple[str, tuple[int, int]]:
    """Returns the sampling and the offset with which decoding gives these pixels best."""
    names = ["4:2:0", *SAMPLINGS] if sampling == "auto" else [sampling]
    if image.shape[1] == 1:
        return names[0], offset
    found = []
    for name in dict.fromkeys(names):
        steps = [(0, SIZE) if factor == 2 else (0,) for factor in SAMPLINGS[name]]
        for rows, columns in product(*steps):
            shifted = (offset[0] + rows, offset[1] + columns)
            operator = JPEG(quality, name, shifted)
            found.append((operator.decoding_error(image), name, shifted))
    least = min(error for error, *_ in found)
    # the first, most common one if the chroma is too smooth to tell
    return next((name, at) for error, name, at in found if error <= SIMILAR * least)


def likelihood_ratio(coefficients: Tensor, table: Tensor) -> float:
    """Returns L of coefficients (..., 8, 8); 0 if there are too few that are not near 0."""
    large = coefficients.abs() > NEAR_ZERO
    large[..., 0, 0] = False  # all blocks of a flat image have the same
    if large.sum() < LEAST_COUNT:
        return 0.0
    q = table.to(coefficients).expand_as(coefficients)[large]
    c = coefficients[large]
    rest = c - q * (c / q).round()
    density = sum(
        torch.exp(-0.5 * ((rest + k * q) / ERROR_STD) ** 2) for k in (-1, 0, 1)
    ) * q / (ERROR_STD * (2 * torch.pi) ** 0.5)
    density = torch.where(q < 2 * ERROR_STD, torch.ones_like(q), density)  # nearly uniform
    return ((1 - OUTLIERS) * density + OUTLIERS).log().mean().item()
