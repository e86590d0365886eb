"""Small batches, operators and an exact denoiser, for tests of the API."""

import torch
from torch import Tensor

from genprior.priors.base import Denoiser

SHAPE = (3, 12, 20)
HOLE = torch.zeros(1, 1, 12, 20, dtype=torch.bool)
HOLE[..., 3:9, 5:14] = True
OPERATORS = {
    "inpaint": {"keep": ~HOLE},
    "deblur": {"kernel": torch.tensor([[1.0, 2, 1], [0, 3, 0], [1, 0, 0]]), "boundary": "reflect"},
    "superres": {"factor": 2},
    "denoise": {},
}


def batch(count: int = 2) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


class Shrink(Denoiser):
    """Exact denoiser of independent pixels with distribution N(1/2, 1/16)."""

    symmetries = range(8)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        sigma2 = torch.as_tensor(sigma).reshape(-1, 1, 1, 1) ** 2
        return (x / 16 + 0.5 * sigma2) / (1 / 16 + sigma2)
