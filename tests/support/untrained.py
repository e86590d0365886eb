"""Untrained priors and random inputs for them."""

import torch
from torch import Tensor, nn

from genprior.priors.glow import Glow
from genprior.priors.hvae import HVAE
from genprior.priors.vae import VAE


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def trained(prior: nn.Module) -> nn.Module:
    """Perturbs a prior so that none of its layers is zero or the identity."""
    for number, parameter in enumerate(prior.parameters()):
        if parameter.ndim > 1 or prior.__class__ is not Glow:
            parameter.data += 0.2 * random(*parameter.shape, seed=number).to(parameter)
    if isinstance(prior, VAE | HVAE):
        prior.log_std.data.fill_(-2.0)
    return prior.double().eval().requires_grad_(False)
