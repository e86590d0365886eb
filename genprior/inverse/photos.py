"""A rough Gaussian law of photos: power falls with the square of the frequency, colours agree.

    S(f) = v c / (f_0^2 + |f|^2),    correlation of two colours 0.9

References:
    Relations between the Statistics of Natural Images and the Response Properties of Cortical
    Cells, Field, 1987.
"""

from collections.abc import Callable

from torch import Tensor
from torch.fft import fft2, fftfreq, ifft2

PHOTO_VAR = 0.06
CORNER = 0.01
CORRELATION = 0.9


def photo_filter(v: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """g(S) v for images v (B, C, H, W) on a torus; `gain` g acts on the eigenvalues of S."""
    f, g = (fftfreq(n, dtype=v.dtype, device=v.device) for n in v.shape[-2:])
    S = 1 / (CORNER**2 + f[:, None] ** 2 + g**2)
    S = PHOTO_VAR * S / S.mean()
    # eigenvalues of the correlation of the colours: of their mean, of differences from it
    alike, apart = 1 + (v.shape[1] - 1) * CORRELATION, 1 - CORRELATION
    grey = v.mean(dim=1, keepdim=True).expand_as(v)
    u = gain(alike * S) * fft2(grey) + gain(apart * S) * fft2(v - grey)
    return ifft2(u).real
