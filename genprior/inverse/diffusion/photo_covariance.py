"""Gaussian model of photos: stationary, with a power-law spectrum and correlated colours.

    S(f) = v c / (f_0^2 + |f|^2),    correlation of two colours 0.9

Above the corner frequency f_0 the power falls with the square of the frequency. c is such that a
pixel has variance v.

References:
    Relations between the Statistics of Natural Images and the Response Properties of Cortical
    Cells, Field, 1987.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.fft import fftfreq, irfft2, rfft2, rfftfreq

PHOTO_VAR = 0.06
CORNER = 0.01
CORRELATION = 0.9


def photo_filter(like: Tensor, gain: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Returns the map v -> g(S) v on images (B, C, H, W) with periodic boundary.

    Arguments:
        like: Images of the shape, type and device of v.
        gain: g; it acts on the eigenvalues of the covariance S.
    """
    channels, size = like.shape[1], like.shape[-2:]
    S = _power(*size, like.dtype, like.device)
    # eigenvalues of the colour correlation matrix: for the mean colour, for differences from it
    of_mean, of_difference = (
        torch.complex(g, torch.zeros_like(g))  # a product with a real number would convert it
        for g in (gain((1 + (channels - 1) * CORRELATION) * S), gain((1 - CORRELATION) * S))
    )

    def apply(v: Tensor) -> Tensor:
        colours = rfft2(v)
        grey = colours.mean(dim=1, keepdim=True)
        return irfft2(of_mean * grey + of_difference * (colours - grey), s=size)

    return apply


@lru_cache(maxsize=8)
def _power(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns v c / (f_0^2 + |f|^2) at the frequencies of `rfft2`; the mean over all is v."""
    with torch.inference_mode(False):  # the cached tensor may be used outside it
        f = fftfreq(height, dtype=dtype, device=device)[:, None]
        S = 1 / (CORNER**2 + f**2 + fftfreq(width, dtype=dtype, device=device) ** 2)
        half = 1 / (CORNER**2 + f**2 + rfftfreq(width, dtype=dtype, device=device) ** 2)
        return PHOTO_VAR * half / S.mean()
