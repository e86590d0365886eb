"""Mean and covariance of x0 given x = x0 + sigma n, from a denoiser and its Jacobian J = D'.

    E[x0 | x] = D(x),    C = Cov[x0 | x] = sigma^2 J

Given y as well, and p(x0 | x) taken as Gaussian, a draw of x0 is

    D + xi + C A^T (A C A^T + sigma_y^2 I)^{-1} (y - A (D + xi) - n),   xi ~ N(0, C)

and without xi and n it is the mean. One product with J costs a backward pass.

References:
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al.,
    2024 (moment matching).
    An Adaptive Covariance Inflation Error Correction Algorithm for Ensemble Filters, Anderson,
    2007 (covariances scaled to the residuals).
    Matrix Computations, Golub and Van Loan, 1996 (Lanczos; Jacobi's rotations).
    Matrix Free Solution of Stochastic Equations with a Krylov Method, Allen et al., 2000
    (Lanczos square roots for Gaussian draws).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.linalg import cg_image, gcr_image, per_image
from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.krylov import Linear, krylov, spectral_function
from genprior.inverse.diffusion.photo_covariance import PHOTO_VAR, photo_filter
from genprior.inverse.diffusion.sampler import denoise_with_vjp
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser, Gaussian


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of x0 given x.

    Arguments:
        mean: D(x), shape (B, C, H, W).
        cov: The map v -> C v on images.
        sigma: Level of x, a number or shape (B, 1, 1, 1).
    """

    mean: Tensor
    cov: Linear
    sigma: float | Tensor


def moments(prior: Denoiser, x: Tensor, sigma: float | Tensor) -> Moments:
    """Moments of x0 given x at level sigma; one evaluation, and one product for each C v."""
    level = sigma.flatten() if isinstance(sigma, Tensor) else sigma
    x_hat, vjp = denoise_with_vjp(prior.denoise, x, level)
    return Moments(x_hat, lambda v: sigma**2 * vjp(v), sigma)


def correction(
    r: Tensor,
    operator: Operator,
    at: Moments,
    variance: Tensor,
    iterations: int,
    symmetric: bool = False,
) -> Tensor:
    """C A^T (A C A^T + sigma_y^2 I)^{-1} r by conjugate residuals, one product an iteration.

    Preconditioned by the solve for an isotropic C, or where A keeps pixels for that of photos.

    Arguments:
        r: Residuals in the measurement, shape (B, ...).
        operator: A.
        at: Moments with C.
        variance: sigma_y^2 per image, shape (B,).
        iterations: Of the solve.
        symmetric: C is symmetric and positive, unlike that of a network: conjugate gradient.

    Returns:
        Images, shape (B, C, H, W).
    """
    noise = variance.reshape(-1, *[1] * (r.ndim - 1))

    def gram(v: Tensor) -> tuple[Tensor, Tensor]:
        image = at.cov(operator.A_adjoint(v))
        return operator.A(image) + noise * v, image

    def near_isotropic(v: Tensor) -> Tensor:
        size = PHOTO_VAR * at.sigma**2 / (PHOTO_VAR + at.sigma**2)
        return operator.precondition(v, size, variance)

    def near_photos(v: Tensor) -> Tensor:
        full = photo_filter(v, lambda S: 1 / (1 / (1 / S + 1 / at.sigma**2) + noise))
        return operator.mask_unmeasured(full)

    near = near_photos if operator.is_pixel_mask else near_isotropic
    if symmetric:
        return cg_image(gram, r, r, iterations, near, least=noise)
    return gcr_image(gram, r, iterations, near)


def draw_prior(prior: Denoiser, at: Moments, products: int, generator: Noise) -> Tensor:
    """xi, a draw of N(0, C): exactly for Gaussian priors, else by Lanczos.

    Of a Gaussian law u - J (u + sigma n) has covariance C, for u drawn from it around its mean.
    """
    if not isinstance(prior, Gaussian):
        return root(at, generator.normal(at.mean), products)
    shape = at.mean.shape
    z = generator.normal(at.mean.new_zeros(()).expand(prior.latent_shape(shape)))
    u = prior.decode(z, shape) - prior.mean(shape).to(z)
    return u - at.cov(u + at.sigma * generator.normal(u)) / at.sigma**2


def draw_given_data(
    y: Tensor,
    operator: Operator,
    at: Moments,
    xi: Tensor,
    noise: Tensor,
    variance: Tensor,
    iterations: int,
) -> Tensor:
    """A draw of x0 given x and y; xi is a draw of N(0, C), noise is white on measurements."""
    std = variance.sqrt().reshape(-1, *[1] * (y.ndim - 1))
    x0 = at.mean + xi
    r = y - operator.A(x0) - std * operator.mask_unmeasured(noise)
    return x0 + correction(r, operator, at, variance, iterations)


def inflated(
    y: Tensor, operator: Operator, at: Moments, xi: Tensor, variance: Tensor, most: float
) -> tuple[Moments, Tensor]:
    """C, and the draw xi of N(0, C), scaled to the residuals that the data show, image by image.

    By |y - A D|^2 / (|A xi|^2 + m sigma_y^2), which is about 1 if C is right. A network's C is
    too small where an image is rougher than its like, and too large where it is smoother. Where
    pixels are missing it is left alone: the others may be rougher than what is in a hole.

    Arguments:
        y, operator, at, xi: As for `draw_given_data`.
        variance: sigma_y^2 per image, shape (B,).
        most: Largest factor, >= 1; the smallest is most^(-1/2).
    """
    r, spread = y - operator.A(at.mean), operator.A(xi)
    count = operator.num_measurements(y)
    seen, expected = _energy(r), _energy(spread) + count.to(y) * variance
    if operator.is_pixel_mask:
        seen = torch.where(count == at.mean[0].numel(), seen, expected)
    return _scaled(at, xi, seen, expected, most)


def sustained(
    x0: Tensor, operator: Operator, at: Moments, xi: Tensor, most: float | Tensor
) -> tuple[Moments, Tensor]:
    """C, and the draw xi of N(0, C), scaled to the draw of x0 that x is a noisy version of.

    By |x0 - D|^2 / |xi|^2, about 1 if x0 has its true law. Draws of Gaussians lack the few
    large details of photos: a network takes what they have in their place for noise, and
    without this, detail and spread dwindle from level to level. Where pixels are missing it
    is these that are looked at.

    Arguments:
        x0: The draw, shape (B, C, H, W).
        operator: A.
        at, xi: As for `inflated`.
        most: Likewise, a number or shape (B,).
    """
    seen, expected = x0 - at.mean, xi
    if operator.is_pixel_mask:
        known = operator.mask_unmeasured(torch.ones_like(xi))
        missing = torch.where(known.flatten(1).all(dim=1).reshape(-1, 1, 1, 1), 1, 1 - known)
        seen, expected = missing * seen, missing * expected
    return _scaled(at, xi, _energy(seen), _energy(expected), most)


def _scaled(
    at: Moments, xi: Tensor, seen: Tensor, expected: Tensor, most: float | Tensor
) -> tuple[Moments, Tensor]:
    factor = torch.where(expected > 0, seen / torch.where(expected > 0, expected, 1), 1)
    factor = per_image(factor.clamp(most**-0.5, most), xi)
    return Moments(at.mean, lambda v: factor * at.cov(v), at.sigma), factor.sqrt() * xi


def _energy(v: Tensor) -> Tensor:
    return (v * v).flatten(1).sum(dim=1)


def root(at: Moments, n: Tensor, products: int) -> Tensor:
    """C^(1/2) n by `products` steps of Lanczos; a draw of N(0, C) for white n.

    Negative eigenvalues of J, as a network may have, count as 0.
    """
    return at.sigma * function_of(at, n, products, lambda values: values.clamp(min=0).sqrt())


def function_of(
    at: Moments, v: Tensor, products: int, f: Callable[[Tensor], Tensor]
) -> Tensor:
    """f(J) v by `products` steps of Lanczos, where f acts on eigenvalues.

    |v| V f(T) e_1, where V is a basis of the Krylov space of J from v and T = V^T J V.
    """
    norm, V, T = krylov(lambda w: at.cov(w) / at.sigma**2, v, products)
    weights = spectral_function(T, f)[:, :, 0]
    return norm * (weights[:, None] @ V).reshape(v.shape)
