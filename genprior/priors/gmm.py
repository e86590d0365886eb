"""Gaussian mixture model of small images or patches, with all abilities in closed form.

    p(x) = sum_k w_k N(x; m_k, S_k)

    E[x0 | x] = sum_k p_k(x) D_k(x),    D_k(x) = m_k + S_k (S_k + sigma^2 I)^{-1} (x - m_k)

with p_k(x) proportional to w_k N(x; m_k, S_k + sigma^2 I). Given y = A x + sigma n the
posterior is again a mixture. Matrices are dense: for up to about a thousand numbers per image.

References:
    Maximum Likelihood from Incomplete Data via the EM Algorithm, Dempster et al., 1977.
    From Learning Models of Natural Image Patches to Whole Image Restoration, Zoran and
    Weiss, 2011 (mixture of patches as a prior).
"""

import math

import torch
from torch import Tensor, nn

from genprior.core.linalg import per_image
from genprior.priors.base import Denoiser, Density


class GMM(nn.Module, Denoiser, Density):
    """Gaussian mixture of images of one size, with d = C H W numbers.

    Arguments:
        weights: Weight of each component, shape (K,), > 0; scaled to sum to 1.
        means: Mean images, shape (K, C, H, W), in [0, 1].
        covariances: Symmetric positive semi-definite, shape (K, d, d).

    Raises:
        ValueError: Shapes do not fit, or a weight is not positive.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        super().__init__()
        self.eval()  # a closed form has no training mode; solvers would copy it
        components, dimension = means.flatten(1).shape
        if weights.shape != (components,) or covariances.shape != (
            components,
            dimension,
            dimension,
        ):
            raise ValueError(
                f"for means of shape {tuple(means.shape)} weights must be ({components},) and "
                f"covariances ({components}, {dimension}, {dimension}), got "
                f"{tuple(weights.shape)} and {tuple(covariances.shape)}"
            )
        if not (weights > 0).all():
            raise ValueError("every weight must be positive: leave out empty components")
        self.shape = tuple(means.shape[1:])
        self.channels, self.size = self.shape[0], self.shape[1:]
        values, vectors = torch.linalg.eigh(covariances)
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.register_buffer("means", means.flatten(1).detach())
        self.register_buffer("variances", values.clamp(min=0))
        self.register_buffer("vectors", vectors)

    @classmethod
    def from_images(
        cls,
        images: Tensor,
        components: int,
        generator: torch.Generator,
        iterations: int = 100,
        floor: float = 0.01,
    ) -> "GMM":
        """Fits a mixture to images by expectation maximisation (EM).

        It starts from random images as means and stops when the mean log-density of an image
        increases by less than 1e-6 nats.

        Arguments:
            images: Shape (N, C, H, W), in [0, 1].
            components: Number of components, at most N.
            generator: Random numbers that choose the initial means, on the CPU.
            iterations: Maximum number of iterations.
            floor: Standard deviation in units of [0, 1] whose square is added to every
                covariance, so that none is singular; > 0.

        Raises:
            ValueError: There are fewer images than components, or the floor is not positive.
        """
        if not 1 <= components <= len(images) or floor <= 0:
            raise ValueError(
                f"components must be in 1 ... {len(images)}, the number of images, and floor "
                f"positive; got {components} and {floor}"
            )
        x = images.flatten(1)
        means = images[torch.randperm(len(x), generator=generator)[:components].to(x.device)]
        noise = floor**2 * torch.eye(x.shape[1]).to(x)
        cov = torch.cov(x.T, correction=0).reshape(1, *noise.shape) + noise
        mixture = cls(x.new_ones(components), means, cov.expand(components, -1, -1))
        last = -math.inf
        for _ in range(iterations):
            joint = mixture._log_joint(x, x.new_zeros(len(x), 1))
            score = joint.logsumexp(dim=1).mean().item()
            if score - last < 1e-6:
                break
            last = score
            share = joint.softmax(dim=1)
            share = share[:, share.sum(dim=0) > 1e-3]
            weights = share.sum(dim=0)
            means = share.T @ x / weights[:, None]
            covariances = [
                (p[:, None] * (x - m)).T @ (x - m) / w + noise
                for p, m, w in zip(share.T, means, weights, strict=True)
            ]
            shape = (-1, *images.shape[1:])
            mixture = cls(weights, means.reshape(shape), torch.stack(covariances))
        return mixture

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        flat, sigma2 = self._flat(x), per_image(sigma, x).square().reshape(-1, 1)
        share = self._log_joint(flat, sigma2).softmax(dim=1)
        return torch.einsum("bk,bkd->bd", share, self._denoised(flat, sigma2)).reshape(x.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        flat = self._flat(x)
        return self._log_joint(flat, flat.new_zeros(len(x), 1)).logsumexp(dim=1)

    def jacobian(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Returns the Jacobian of `denoise` at x; sigma^2 times it is Cov[x0 | x].

            J = sum_k p_k (J_k + (D_k - D) D_k^T / sigma^2),   J_k = S_k (S_k + sigma^2 I)^{-1}

        Arguments:
            x: Noisy images, shape (B, C, H, W).
            sigma: Noise level > 0, a number or shape (B,).

        Returns:
            Symmetric matrices, shape (B, d, d).
        """
        flat, sigma2 = self._flat(x), per_image(sigma, x).square().reshape(-1, 1)
        share = self._log_joint(flat, sigma2).softmax(dim=1)
        D = self._denoised(flat, sigma2)
        gain = self.variances.to(x) / (self.variances.to(x) + sigma2[:, :, None])
        U = self.vectors.to(x)
        within = torch.einsum("bk,bkj,kij,klj->bil", share, gain, U, U)
        spread = D - torch.einsum("bk,bkd->bd", share, D)[:, None]
        between = torch.einsum("bk,bki,bkj->bij", share, spread, spread)
        return within + between / sigma2[:, :, None]

    def posterior(self, y: Tensor, matrix: Tensor, noise_std: float) -> "GMM":
        """Returns the posterior of x given y = A x + sigma n: again a mixture.

        Arguments:
            y: One measurement, any shape with m numbers.
            matrix: A as a dense matrix, shape (m, d).
            noise_std: Standard deviation sigma of the noise, > 0.

        Raises:
            ValueError: Shapes do not fit or the noise level is not positive.
        """
        dimension = self.means.shape[1]
        if matrix.shape != (y.numel(), dimension) or noise_std <= 0:
            raise ValueError(
                f"matrix must be ({y.numel()}, {dimension}) and noise_std positive, got "
                f"{tuple(matrix.shape)} and {noise_std}"
            )
        S = (self.vectors * self.variances[:, None]) @ self.vectors.mT
        noise = noise_std**2 * torch.eye(len(matrix)).to(S)
        factor = torch.linalg.cholesky(matrix @ S @ matrix.T + noise)
        gain = torch.cholesky_solve(matrix @ S, factor).mT
        r = y.flatten() - self.means @ matrix.T
        distance = torch.linalg.solve_triangular(factor, r[..., None], upper=False).square()
        log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        log_weights = self.log_weights - 0.5 * (distance.sum(dim=(1, 2)) + log_det)
        means = self.means + (gain @ r[..., None])[..., 0]
        kept = torch.eye(dimension).to(S) - gain @ matrix
        covariances = kept @ S @ kept.mT + gain @ noise @ gain.mT
        # a weight that underflows to 0 would have no logarithm
        weights = log_weights.softmax(dim=0).clamp(min=torch.finfo(S.dtype).tiny)
        return GMM(weights, means.reshape(-1, *self.shape), covariances)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws images, shape (count, C, H, W); the generator is on the CPU."""
        weights = self.log_weights.exp().cpu()
        k = torch.multinomial(weights, count, replacement=True, generator=generator)
        k = k.to(self.means.device)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=weights.dtype)
        scaled = noise.to(self.means) * self.variances[k].sqrt()
        x = self.means[k] + torch.einsum("bij,bj->bi", self.vectors[k], scaled)
        return x.reshape(count, *self.shape)

    def _flat(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"this prior takes images of shape {self.shape} (channels, height, width), got "
                f"{tuple(x.shape[1:])}: crop the images, or cut them into patches"
            )
        return x.flatten(1)

    def _rotated(self, x: Tensor) -> Tensor:
        """Returns the coordinates of x - m_k in the eigenvectors of S_k, shape (B, K, d)."""
        return torch.einsum("bkd,kdj->bkj", x[:, None] - self.means.to(x), self.vectors.to(x))

    def _log_joint(self, x: Tensor, sigma2: Tensor) -> Tensor:
        """Returns log w_k + log N(x; m_k, S_k + sigma2 I), shape (B, K); sigma2 is (B, 1)."""
        variances = self.variances.to(x) + sigma2[:, :, None]
        terms = self._rotated(x).square() / variances + (2 * math.pi * variances).log()
        return self.log_weights.to(x) - 0.5 * terms.sum(dim=2)

    def _denoised(self, x: Tensor, sigma2: Tensor) -> Tensor:
        """Returns D_k(x), shape (B, K, d)."""
        gain = self.variances.to(x) / (self.variances.to(x) + sigma2[:, :, None])
        moved = torch.einsum("bkj,kdj->bkd", self._rotated(x) * gain, self.vectors.to(x))
        return self.means.to(x) + moved
