"""Texton of many images: their mean spectrum and the most likely texture.

With crops u_i of n pixels, m the mean colour, and a Hann window h of mean square 1,

    S(k) = mean over i of  F(h (u_i - m))(k)  F(h (u_i - m))(k)^* / n

is a matrix over the channels for each frequency. Its covariances are those of the images times a
factor that falls from 1 at lag 0 to 0 at the size of a crop. The model of S(k) in a texture is
t(k) t(k)^* + f^2 I. The most likely texture with the same f at all frequencies uses the largest
eigenvalue l_1 of S(k) and its eigenvector v_1:

    f^2 = mean of all other eigenvalues,    t = v_1 sqrt(l_1 - f^2)

In photographs f is large, 0.1: it models all colour that does not vary with the luminance, mostly
at low frequencies. `synthesise` draws samples without it. A small f removes this colour from
estimates: denoising photographs with noise 0.05 gives 24.7 dB, and 27.1 dB with f = 0.1.

The window mixes neighbouring frequencies. Where v_1 changes between them, f is slightly too large;
the error decreases with the size of the crops.

The phase of t is free. It is chosen such that the sum of the channels is real and positive, which
gives the most compact texton.

References:
    The Use of Fast Fourier Transform for the Estimation of Power Spectra, Welch, 1967.
    Probabilistic Principal Component Analysis, Tipping and Bishop, 1999 (f and t).
"""

import math

import torch
from torch import Tensor
from torch.fft import fft2, fftshift, ifft2

FFT_BATCH = 64


def mean_spectrum(images: Tensor, mean: Tensor) -> Tensor:
    """Returns S, complex, (H, W, C, C), of images (N, C, H, W) with a mean colour (C,)."""
    rows, columns = (
        torch.sin(math.pi * torch.arange(1, n + 1).to(images) / (n + 1)).square()
        for n in images.shape[-2:]
    )
    window = rows[:, None] * columns
    window = window / window.square().mean().sqrt()
    total = 0
    for part in images.split(FFT_BATCH):
        U = fft2(window * (part - mean[:, None, None]), norm="ortho")
        total = total + torch.einsum("ichw,idhw->hwcd", U, U.conj())
    return total / len(images)


def nearest_texton(S: Tensor, floor: float | None) -> tuple[Tensor, float]:
    """Returns the most likely texton of a mean spectrum, and the floor f.

    Arguments:
        S: Output of `mean_spectrum`.
        floor: Standard deviation f; None for the most likely one, which needs C > 1.

    Returns:
        Texton (C, H, W), centred, and f.
    """
    values, vectors = torch.linalg.eigh(S)
    if floor is None:
        floor = values[..., :-1].clamp(min=0).mean().sqrt().item()
    total = vectors[..., -1].sum(dim=-1, keepdim=True)
    phase = torch.where(total == 0, 1, total / total.abs()).conj()
    scale = (values[..., -1:] - floor**2).clamp(min=0).sqrt()
    t = (vectors[..., -1] * phase * scale).permute(2, 0, 1)
    return fftshift(ifft2(t).real, dim=(1, 2)), floor
