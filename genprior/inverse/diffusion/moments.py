"""Mean and covariance of x0 given x = x0 + sigma n, from a denoiser and its Jacobian J = D'.

    E[x0 | x] = D(x),    C = Cov[x0 | x] = sigma^2 J

If p(x0 | x) is taken as Gaussian, a draw of x0 given x and y is

    D + xi + C A^T (A C A^T + sigma_y^2 I)^{-1} (y - A (D + xi) - n),   xi ~ N(0, C)

with n ~ N(0, sigma_y^2 I), and without xi and n it is the mean. One product with J costs a
backward pass.

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

# Standard deviations by which the energy of residuals must differ from the expected one.
SIGNIFICANT = 3.0


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
    """Returns the moments of x0 given x at level sigma.

    They cost one network evaluation, and one backward pass for each product C v.
    """
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
    """Returns C A^T (A C A^T + sigma_y^2 I)^{-1} r, by preconditioned conjugate residuals.

    The preconditioner solves the system with an isotropic C, or, if A is a pixel mask, with the C
    of `photo_covariance`.

    Arguments:
        r: Residuals of the measurement, shape (B, ...).
        operator: A.
        at: Moments with C.
        variance: sigma_y^2 per image, shape (B,).
        iterations: Iterations of the solve; each takes one product with C.
        symmetric: Whether C is symmetric and positive, unlike that of a network; then conjugate
            gradient is used.

    Returns:
        Images, shape (B, C, H, W).
    """
    noise = variance.reshape(-1, *[1] * (r.ndim - 1))

    def gram(v: Tensor) -> tuple[Tensor, Tensor]:
        image = at.cov(operator.A_adjoint(v))
        return operator.A(image) + noise * v, image

    def isotropic_solve(v: Tensor) -> Tensor:
        size = PHOTO_VAR * at.sigma**2 / (PHOTO_VAR + at.sigma**2)
        return operator.precondition(v, size, variance)

    preconditioner = isotropic_solve
    if operator.is_pixel_mask:
        inverse = photo_filter(r, lambda S: 1 / (1 / (1 / S + 1 / at.sigma**2) + noise))

        def preconditioner(v: Tensor) -> Tensor:
            return operator.mask_unmeasured(inverse(v))

    if symmetric:
        return cg_image(gram, r, r, iterations, preconditioner, least=noise)
    return gcr_image(gram, r, iterations, preconditioner)


def draw_prior(prior: Denoiser, at: Moments, products: int, generator: Noise) -> Tensor:
    """Draws xi ~ N(0, C): exactly for Gaussian priors, otherwise by Lanczos.

    For a Gaussian prior u - J (u + sigma n) has covariance C, where u is a draw from the prior
    minus its mean.
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
    """Draws x0 given x and y, from a draw xi of N(0, C) and white noise of the shape of y."""
    std = variance.sqrt().reshape(-1, *[1] * (y.ndim - 1))
    x0 = at.mean + xi
    r = y - operator.A(x0) - std * operator.mask_unmeasured(noise)
    return x0 + correction(r, operator, at, variance, iterations)


def inflated(
    y: Tensor, operator: Operator, at: Moments, xi: Tensor, variance: Tensor, max_factor: float
) -> tuple[Moments, Tensor]:
    """Returns C and the draw xi of N(0, C), scaled to the residuals of the data, per image.

    C is scaled by |y - A D|^2 / (|A xi|^2 + m sigma_y^2), for m measured numbers; this is about 1
    if C is right. It also differs from 1 by chance, and always in the same way for one y: a ratio
    within 3 standard deviations of white numbers does not scale C, see `_significant`, and one
    beyond 6 is used as it is. A network's C is too small for images that are rougher than typical,
    and too large for smoother ones. An image with missing pixels is not scaled, since its measured
    pixels may be rougher than the content of the hole.

    Arguments:
        y, operator, at, xi: As for `draw_given_data`.
        variance: sigma_y^2 per image, shape (B,).
        max_factor: Largest factor, >= 1; the smallest is max_factor^(-1/2).
    """
    r, spread = y - operator.A(at.mean), operator.A(xi)
    count = operator.num_measurements(y)
    observed, expected = _energy(r), _energy(spread) + count.to(y) * variance
    if operator.is_pixel_mask:
        observed = torch.where(count == at.mean[0].numel(), observed, expected)
    pixels = count / y.shape[1] if y.ndim == 4 else count  # colours are correlated
    return _scaled(at, xi, _significant(observed, expected, pixels), expected, max_factor)


def rescaled(
    x0: Tensor, operator: Operator, at: Moments, xi: Tensor, max_factor: float | Tensor
) -> tuple[Moments, Tensor]:
    """Returns C and the draw xi of N(0, C), scaled to the draw of x0 that was noised to x.

    C is scaled by |x0 - D|^2 / |xi|^2, which is about 1 if x0 has the right distribution. Gaussian
    draws lack the few large details of photos. A network treats the details that these draws have
    instead as noise, so that without this factor detail and spread shrink from level to level. In
    images with missing pixels only the missing pixels are compared.

    Arguments:
        x0: The draw, shape (B, C, H, W).
        operator: A.
        at, xi: As for `inflated`.
        max_factor: As for `inflated`; a number or shape (B,).
    """
    observed, expected = x0 - at.mean, xi
    if operator.is_pixel_mask:
        known = operator.mask_unmeasured(torch.ones_like(xi))
        missing = torch.where(known.flatten(1).all(dim=1).reshape(-1, 1, 1, 1), 1, 1 - known)
        observed, expected = missing * observed, missing * expected
    return _scaled(at, xi, _energy(observed), _energy(expected), max_factor)


def _scaled(
    at: Moments, xi: Tensor, observed: Tensor, expected: Tensor, max_factor: float | Tensor
) -> tuple[Moments, Tensor]:
    factor = torch.where(expected > 0, observed / torch.where(expected > 0, expected, 1), 1)
    factor = per_image(factor.clamp(max_factor**-0.5, max_factor), xi)
    return Moments(at.mean, lambda v: factor * at.cov(v), at.sigma), factor.sqrt() * xi


def _significant(observed: Tensor, expected: Tensor, count: Tensor) -> Tensor:
    """Returns observed energies of `count` numbers, moved towards the expected ones.

    The logarithm of the ratio of two energies of m white numbers has the variance 4 / m.
    """
    ratio = torch.where(expected > 0, observed / torch.where(expected > 0, expected, 1), 1)
    log_ratio = ratio.clamp(min=1e-12).log()
    threshold = SIGNIFICANT * (4 / count.clamp(min=1).to(ratio)).sqrt()
    size = log_ratio.abs()
    kept = torch.minimum(size, 2 * (size - threshold).clamp(min=0))
    return torch.where(expected > 0, expected * (log_ratio.sign() * kept).exp(), observed)


def _energy(v: Tensor) -> Tensor:
    return (v * v).flatten(1).sum(dim=1)


def root(at: Moments, n: Tensor, products: int) -> Tensor:
    """Returns C^(1/2) n by `products` steps of Lanczos; for white n it is a draw of N(0, C).

    The Jacobian of a network may have negative eigenvalues; they count as 0.
    """
    return at.sigma * function_of(at, n, products, lambda values: values.clamp(min=0).sqrt())


def function_of(
    at: Moments, v: Tensor, products: int, f: Callable[[Tensor], Tensor]
) -> Tensor:
    """Returns f(J) v by `products` steps of Lanczos, where f acts on eigenvalues.

    It is |v| V f(T) e_1, where V is a basis of the Krylov space of J from v and T = V^T J V.
    """
    norm, V, T = krylov(lambda w: at.cov(w) / at.sigma**2, v, products)
    weights = spectral_function(T, f)[:, :, 0]
    return norm * (weights[:, None] @ V).reshape(v.shape)
