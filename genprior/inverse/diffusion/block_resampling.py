"""Resampling of particles in blocks of an image: weights and effective sample sizes by block.

The weight of a whole image is a product over its pixels, so that the variance of its logarithm
grows with their number, and so does the number of particles for a given effective sample size,
exponentially (Snyder et al.). A block filter cuts the images into blocks, gives each its own
weights, and chooses for each which particles continue:

    x_k = (x_a(k, 1) in block 1, x_a(k, 2) in block 2, ...),    a(., b) ~ weights of block b

The effective sample size then depends on the size of the blocks, not on that of the image. The
price is a bias near the edges of blocks, where a new particle joins parts of two others: it is
small if pixels that are far apart are almost independent given the measurement (Rebeschini and
van Handel), and does not vanish with more particles. It is kept small in two ways: the grid of the
blocks is shifted at random at each level, so that edges do not stay at the same pixels, and a
particle keeps its own place in all blocks where it survives, so that most particles are not cut.

References:
    Obstacles to High-Dimensional Particle Filtering, Snyder et al., 2008 (weights collapse).
    Can Local Particle Filters Beat the Curse of Dimensionality?, Rebeschini and van Handel, 2015
    (blocks, and their bias).
    Comparison of local particle filters and new implementations, Farchi and Bocquet, 2018
    (particles that keep their places).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.random_streams import Noise

# Share of the particles below which the effective sample size leads to resampling.
UNEVEN = 0.5


@dataclass(frozen=True)
class Blocks:
    """Squares that cover the images of each run.

    Arguments:
        index: Number of the block of each pixel, shape (R, H, W), for R runs.
        count: Number of blocks; some may have no pixels.
    """

    index: Tensor
    count: int

    def sums(self, shares: Tensor) -> Tensor:
        """Returns the sums (R, count, N) over the blocks of maps (R, N, H, W), for N particles."""
        index = self.index[:, None].expand_as(shares).flatten(2)
        zeros = shares.new_zeros(*shares.shape[:2], self.count)
        return zeros.scatter_add(2, index, shares.flatten(2)).mT

    def maps(self, values: Tensor) -> Tensor:
        """Returns the value of its block at every pixel, (R, N, H, W), of values (R, count, N)."""
        index = self.index.flatten(1)[..., None].expand(-1, -1, values.shape[2])
        return values.gather(1, index).mT.unflatten(2, self.index.shape[1:])

    def means(self, values: Tensor) -> Tensor:
        """Returns the mean (R,) over the pixels of values of the blocks, (R, count)."""
        return self.maps(values[..., None]).flatten(1).mean(dim=1)

    def joined(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Returns particles whose blocks are those of other particles.

        Arguments:
            x: Particles, shape (R, N, C, H, W).
            chosen: For each new particle and block the particle that it is taken from, shape
                (R, count, M).

        Returns:
            M new particles of each run, shape (R, M, C, H, W).
        """
        index = self.maps(chosen)[:, :, None]
        return x.gather(1, index.expand(-1, -1, *x.shape[2:3], -1, -1))


def blocks(like: Tensor, side: int, generator: Noise) -> Blocks:
    """Returns blocks whose grid is shifted at random for each run; one block for small images.

    Arguments:
        like: Images, one per run, (R, C, H, W), for their shape and device.
        side: Height and width of a block in pixels.
        generator: Random streams, one per run; none is used for an image of at most `side`
            pixels a side.
    """
    height, width = like.shape[-2:]
    if max(height, width) <= side:
        return Blocks(torch.zeros_like(like[:, 0], dtype=torch.int64), 1)
    shift = (side * _uniform(like.new_zeros(len(like), 2), generator)).long().clamp(max=side - 1)
    rows, columns = (
        (torch.arange(length, device=like.device) + shift[:, axis, None]) // side
        for axis, length in enumerate((height, width))
    )
    across = (width + side - 2) // side + 1
    return Blocks(rows[:, :, None] * across + columns[:, None], across * (
        (height + side - 2) // side + 1
    ))


def effective_sizes(w: Tensor) -> Tensor:
    """Returns the effective sample sizes (...) of weights (..., N) that sum to 1."""
    return 1 / w.square().sum(dim=-1)


def resample(w: Tensor, generator: Noise) -> tuple[Tensor, Tensor]:
    """Resamples where the effective sample size is below half the number of particles.

    Arguments:
        w: Weights, shape (R, K, N) for R runs, K blocks and N particles; they sum to 1 over N.
        generator: Random streams, one per run; one number is drawn from each.

    Returns:
        The particle that each particle continues with, shape (R, K, N); and whether the block was
        resampled, (R, K, 1): if not, particles stay, with their weights.
    """
    uneven = effective_sizes(w)[..., None] < UNEVEN * w.shape[-1]
    stay = torch.arange(w.shape[-1], device=w.device).expand_as(w)
    return torch.where(uneven, in_place(choose(w, w.shape[-1], generator)), stay), uneven


def choose(w: Tensor, answers: int, generator: Noise) -> Tensor:
    """Chooses particles by weight: systematic resampling, with one number for all blocks of a run.

    Arguments:
        w: Weights, shape (R, K, N); they sum to 1 over N.
        answers: Number of particles to choose.
        generator: Random streams, one per run; one number is drawn from each.

    Returns:
        Indices below N, not decreasing, shape (R, K, answers).
    """
    u = _uniform(w[:, :1, :1], generator)
    positions = (torch.arange(answers, dtype=w.dtype, device=w.device) + u) / answers
    positions = positions.expand(-1, w.shape[1], -1).contiguous()
    return torch.searchsorted(w.cumsum(dim=-1), positions).clamp(max=w.shape[-1] - 1)


def in_place(chosen: Tensor) -> Tensor:
    """Reorders chosen particles (..., N), not decreasing, so that those chosen keep their places.

    Copies of particles that were chosen several times get the places of those that were not.

    >>> in_place(torch.tensor([1, 1, 1, 3])).tolist()
    [1, 1, 1, 3]
    >>> in_place(torch.tensor([0, 2, 2, 3])).tolist()
    [0, 2, 2, 3]
    """
    copies = torch.zeros_like(chosen, dtype=torch.int8)
    copies[..., 1:] = (chosen[..., 1:] == chosen[..., :-1]).to(torch.int8)
    free = torch.ones_like(copies).scatter(-1, chosen, 0)
    order = chosen.gather(-1, copies.argsort(dim=-1, stable=True))
    return torch.empty_like(chosen).scatter(-1, free.argsort(dim=-1, stable=True), order)


def _uniform(like: Tensor, generator: Noise) -> Tensor:
    """Returns numbers in (0, 1); those of antithetic samples are one minus each other."""
    return torch.special.ndtr(generator.normal(like))
