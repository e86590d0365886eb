"""Bias, standard deviation and Wasserstein distance of samples, where the posterior is known.

The posterior of Gaussian priors is known for every operator, that of a prior with a method
`posterior(y, matrix, noise_std)`, such as a Gaussian mixture, for operators that are small enough
to be a matrix.
"""

from typing import Any

import torch
from torch import Tensor, nn

from genprior.api.factory import make_solver, operator_on
from genprior.core.metrics import finite
from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.calibration import sliced_wasserstein
from genprior.operators.base import Operator
from genprior.priors.base import Gaussian

# Numbers per image up to which the exact posterior is sampled, and up to which A is a matrix.
MOST_NUMBERS, MOST_COLUMNS = 3 * 64**2, 1024
EXACT_SAMPLES, DISTANCES, SLICES = 256, 4, 200


def exact_scores(
    samples: Tensor, y: Tensor, operator: Operator, prior: Any, noise_std: float, seed: int = 0
) -> dict[str, float | None]:
    """Returns bias, std and w2 of samples of one image against its exact posterior.

    All are 1 for a perfect sampler, up to Monte Carlo.

    Arguments:
        samples: Shape (K, C, H, W), K >= 2.
        y: The measurement, shape (1, ...).
        operator: The operator, for one image.
        prior: The prior.
        noise_std: Noise level of y.
        seed: Seed of the exact samples.

    Returns:
        The scores by name; empty if the posterior is not known, or the image is too large.
    """
    if isinstance(prior, nn.Module):
        tensors = [*prior.parameters(), *prior.buffers()]
        device = tensors[0].device if tensors else y.device
        y, operator = y.to(device), operator_on(operator, device)
    exact = _exact(samples, y, operator, prior, noise_std, seed)
    if exact is None:
        return {}
    mean, others = exact
    count, x = len(samples), samples.cpu().double().flatten(1)
    variance = (others - mean).square().mean(dim=0)
    if not variance.sum() > 0:
        return {}
    bias = (x.mean(dim=0) - mean).norm() / (variance.sum() / count).sqrt()
    std = (x.var(dim=0).sum() / variance.sum()).sqrt()
    generator = torch.Generator().manual_seed(seed)
    distances = torch.zeros(2, dtype=torch.float64)
    for _ in range(DISTANCES):
        order = torch.randperm(len(others), generator=generator)
        a, b = others[order[:count]], others[order[count : 2 * count]]
        for k, set_ in enumerate((x, b)):
            distances[k] += sliced_wasserstein(set_, a, generator, SLICES)
    return {
        "bias": finite(bias), "std": finite(std), "w2": finite(distances[0] / distances[1]),
    }


def _exact(
    samples: Tensor, y: Tensor, operator: Operator, prior: Any, noise_std: float, seed: int
) -> tuple[Tensor, Tensor] | None:
    """Returns the mean (d,) and samples (N, d) of the exact posterior, N >= 2 K; None if unknown.
    """
    shape = operator.image_shape(y.shape)
    count = max(EXACT_SAMPLES, 2 * len(samples))
    if shape[1:].numel() > MOST_NUMBERS or shape[1:] != samples.shape[1:]:
        return None
    if isinstance(prior, Gaussian):
        noise = Noise(seed + 1, [(0, k) for k in range(count)])
        many = y.expand(count, *y.shape[1:])
        rows = operator.select([0] * count)
        one = noise.select([0])
        try:
            mean = make_solver("gaussian", mode="mean")(y, operator, prior, noise_std, one)
            x = make_solver("gaussian")(many, rows, prior, noise_std, noise)
        except ArithmeticError:  # its linear system did not converge
            return None
        return mean.double().flatten().cpu(), x.double().flatten(1).cpu()
    if not hasattr(prior, "posterior") or noise_std <= 0 or shape[1:].numel() > MOST_COLUMNS:
        return None
    unit = torch.eye(shape[1:].numel()).to(y).reshape(-1, *shape[1:])
    A = operator.select([0] * len(unit)).A(unit).flatten(1).T
    seen = operator.mask_unmeasured(torch.ones_like(y)).flatten() > 0
    law = prior.posterior(y.flatten()[seen], A[seen], noise_std)
    x = law.sample(count, torch.Generator().manual_seed(seed + 1)).double().flatten(1)
    mean = (law.log_weights.exp()[:, None] * law.means).sum(dim=0)
    return mean.double().cpu(), x.cpu()
