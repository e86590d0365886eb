"""A rough Gaussian law of photos: power falls with the square of the frequency, colours agree.

    S(f) = v c / (f_0^2 + |f|^2),    correlation of two colours 0.9

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


def photo_filter(v: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """g(S) v for images v (B, C, H, W) on a torus; `gain` g acts on the eigenvalues of S."""
    S = _power(v.shape[-2], v.shape[-1], v.dtype, v.device)
    # eigenvalues of the correlation of the colours: of their mean, of differences from it
    alike, apart = 1 + (v.shape[1] - 1) * CORRELATION, 1 - CORRELATION
    colours = rfft2(v)
    grey = colours.mean(dim=1, keepdim=True)
    u = gain(alike * S) * grey + gain(apart * S) * (colours - grey)
    return irfft2(u, s=v.shape[-2:])


@lru_cache(maxsize=8)
def _power(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """v c / (f_0^2 + |f|^2) at the frequencies of `rfft2`, of mean v over all frequencies."""
    with torch.inference_mode(False):  # which may be left before the next use
        f = fftfreq(height, dtype=dtype, device=device)[:, None]
        S = 1 / (CORNER**2 + f**2 + fftfreq(width, dtype=dtype, device=device) ** 2)
        half = 1 / (CORNER**2 + f**2 + rfftfreq(width, dtype=dtype, device=device) ** 2)
        return PHOTO_VAR * half / S.mean()
