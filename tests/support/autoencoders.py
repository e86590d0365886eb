"""Linear variational autoencoder whose encoder is the exact posterior."""

import math

import torch
from gaussians import generator
from torch import Tensor

from genprior.priors.vae import VAE

STD = 0.2


def linear_vae(
    shape: tuple[int, int, int], latent: int = 3, divergence: str = "sampled"
) -> tuple[VAE, Tensor, Tensor]:
    """Builds x = b + W z + STD n with orthogonal columns of W: the posterior of z is diagonal.

    Returns:
        The prior, b, and the covariance W W^T + STD^2 I.
    """
    size = torch.Size(shape).numel()
    random = torch.randn(size, latent, generator=generator(3), dtype=torch.float64)
    W = torch.linalg.qr(random).Q * torch.linspace(0.3, 1.2, latent, dtype=torch.float64)
    b = 0.5 + 0.1 * torch.randn(size, generator=generator(4), dtype=torch.float64)
    dense = {"size": shape[1:], "architecture": "dense"}
    prior = VAE(shape[0], latent, (), **dense, std=STD, divergence=divergence).double()
    prior.log_std.data.fill_(math.log(STD))  # in float64
    precision = 1 + W.square().sum(dim=0) / STD**2
    decoder, encoder = prior.coder.decode[0], prior.coder.encode[1]
    # the network works on [-1, 1]: u = 2 x - 1
    decoder.weight.data, decoder.bias.data = 2 * W, 2 * b - 1
    gain = (W / precision).mT / STD**2
    encoder.weight.data[:latent], encoder.weight.data[latent:] = gain / 2, 0
    encoder.bias.data = torch.cat((gain @ (0.5 - b), -0.5 * precision.log()))
    covariance = W @ W.mT + STD**2 * torch.eye(size, dtype=W.dtype)
    return prior.requires_grad_(False), b, covariance
