"""Linear decoders with a closed-form posterior, for tests of optimisation solvers."""

import torch
from contracts import dense
from oracles import Dense
from torch import Tensor

from genprior.operators.base import Operator
from genprior.priors.pca import PCA


def linear(shape: tuple[int, int, int], floor: float, rank: int = 6) -> tuple[PCA, Tensor]:
    """Returns a PCA prior and its covariance as a matrix."""
    values, vectors = torch.linalg.eigh(Dense().cov(shape))
    values, vectors = values[-rank:], vectors[:, -rank:]
    prior = PCA(torch.full(shape, 0.4).double(), vectors.mT.reshape(-1, *shape), values, floor)
    rest = torch.eye(len(vectors), dtype=torch.float64) - vectors @ vectors.mT
    return prior, vectors @ torch.diag(values) @ vectors.mT + floor**2 * rest


def posterior_means(
    op: Operator, S: Tensor, y: Tensor, sigma: Tensor, mean: float
) -> Tensor:
    """Returns E[x | y] of every image under x ~ N(mean, S), from dense matrices."""
    shape, exact = op.image_shape(y.shape)[1:], []
    for i in range(len(y)):
        A = dense(op.select([i]), torch.zeros(1, *shape, dtype=S.dtype))
        gram = A @ S @ A.mT + sigma[i] ** 2 * torch.eye(len(A), dtype=A.dtype)
        residual = y[i].flatten() - A @ torch.full((len(S),), mean, dtype=A.dtype)
        exact.append(mean + (S @ A.mT @ torch.linalg.solve(gram, residual)).reshape(shape))
    return torch.stack(exact)


def relative_error(x: Tensor, exact: Tensor, mean: float) -> float:
    """Returns the largest error of an image, relative to its exact distance to the mean."""
    error = (x - exact).flatten(1).norm(dim=1) / (exact - mean).flatten(1).norm(dim=1)
    return error.max().item()
