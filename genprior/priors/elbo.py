"""Terms of the evidence lower bound (ELBO), in nats per image.

References:
    Auto-Encoding Variational Bayes, Kingma and Welling, 2014.
    Importance Weighted Autoencoders, Burda, Grosse and Salakhutdinov, 2016.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genprior.core.random_streams import Noise


def add_training_noise(x: Tensor, maximum: float, noise: Noise) -> Tensor:
    """Returns images (B, C, H, W) with white noise, each of its own level in [0, maximum]."""
    if not maximum:
        return x
    return x + maximum * noise.uniform(x[:, :1, :1, :1]) * noise.normal(x)


def divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Returns KL(N(mean, std^2) || N(0, I)), shape (B,)."""
    each = mean**2 + (2 * log_std).exp() - 1 - 2 * log_std
    return 0.5 * each.flatten(1).sum(dim=1)


def sampled_divergence(z: Tensor, n: Tensor, log_std: Tensor) -> Tensor:
    """Returns log q(z) - log p(z) at z = mean + std n, an unbiased estimate of the KL, (B,)."""
    return (0.5 * z**2 - 0.5 * n**2 - log_std).flatten(1).sum(dim=1)


def log_normal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Returns log N(x; mean, std^2 I), shape (B,)."""
    each = -0.5 * ((x - mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)
    return each.flatten(1).sum(dim=1)


def log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """Returns the log-probability of binary images x, shape (B,)."""
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return -each.flatten(1).sum(dim=1)


def importance_bound(log_weight: Callable[[], Tensor], samples: int) -> Tensor:
    """Returns the log of the mean of exp(log_weight()) over `samples` calls, shape (B,)."""
    total = log_weight()
    for _ in range(samples - 1):
        total = torch.logaddexp(total, log_weight())
    return total - math.log(samples)
