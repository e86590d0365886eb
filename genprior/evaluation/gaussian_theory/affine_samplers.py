"""One step of each diffusion sampler as matrices, for Gaussian priors; see `laws`.

The state is x = x0 + s n. With D = S (S + s^2 I)^{-1} the denoiser, C = s^2 D the covariance
of x0 given x, and an estimate x_hat = X x + Y y, a step from level s to s' is

    x <- x_hat + keep (x - x_hat) + added n

References:
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al.,
    2024 (moment matching, MMPS).
    Pseudoinverse-Guided Diffusion Models for Inverse Problems, Song et al., 2023 (PiGDM).
    Denoising Diffusion Models for Plug-and-Play Image Restoration, Zhu et al., 2023 (DiffPIR).
    Tweedie Moment Projected Diffusions for Inverse Problems, Boys et al., 2023.
    Denoising Diffusion Restoration Models, Kawar et al., 2022 (DDRM).
    Principled Probabilistic Imaging Using Diffusion Models as Plug-and-Play Priors, Wu et al.,
    2024 (PnP-DM).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from genprior.core.schedules import step_coefficients
from genprior.evaluation.gaussian_theory.exact_laws import (
    Law,
    Problem,
    Step,
    eye,
    right_solve,
    symmetric,
)

Rule = Callable[[Problem, float, float], Step]


def steps(rule: Rule, problem: Problem, sigmas: Sequence[float]) -> Iterator[Step]:
    """The steps of a rule through decreasing levels, the last one being 0."""
    for sigma, sigma_next in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        yield rule(problem, sigma, sigma_next)


def denoiser(problem: Problem, sigma: float) -> Tensor:
    """D, shape (..., n, n)."""
    return right_solve(problem.S, problem.S + sigma**2 * eye(problem.S.shape[-1], problem.S))


def mmps(eta: float) -> Rule:
    """The exact mean of x0 given x and y, then a DDIM / DDPM step with that eta."""

    def rule(problem: Problem, sigma: float, sigma_next: float) -> Step:
        D = denoiser(problem, sigma)
        K = _posterior_gain(problem, sigma**2 * D)
        return _reverse(problem, D - K @ problem.A @ D, K, sigma, sigma_next, eta)

    return rule


def moment_matched(problem: Problem, sigma: float, sigma_next: float) -> Step:
    """x0 is drawn given x and y, not replaced by its mean: exact, whatever the steps."""
    D = denoiser(problem, sigma)
    C = sigma**2 * D
    K = _posterior_gain(problem, C)
    step = _reverse(problem, D - K @ problem.A @ D, K, sigma, sigma_next, eta=1.0)
    keep = step_coefficients(sigma, sigma_next, 1.0)[0]
    spread = symmetric(C - K @ problem.A @ C)
    return Step(step.M, step.N, step.Q + (1 - keep) ** 2 * spread)


def pigdm(eta: float, prior_var: float, published: bool = False) -> Rule:
    """The mean of x0 under an isotropic guess of C; `published` has the authors' weight."""

    def rule(problem: Problem, sigma: float, sigma_next: float) -> Step:
        A, D = problem.A, denoiser(problem, sigma)
        r2 = prior_var * sigma**2 / (prior_var + sigma**2)
        gram = r2 * A @ A.mH + problem.sigma**2 * eye(A.shape[-2], A)
        K = right_solve(D @ A.mH, gram)
        if not published:
            K = sigma**2 * K
            return _reverse(problem, D - K @ A @ D, K, sigma, sigma_next, eta)
        step = _reverse(problem, D, torch.zeros_like(K), sigma, sigma_next, eta)
        return Step(step.M - r2 * K @ A @ D, step.N + r2 * K, step.Q)

    return rule


def jfps(eta: float, prior_var: float) -> Rule:
    """The mean of x0 under an isotropic guess of S, which takes no product with D's slope."""

    def rule(problem: Problem, sigma: float, sigma_next: float) -> Step:
        D = denoiser(problem, sigma)
        r2 = prior_var * sigma**2 / (prior_var + sigma**2)
        K = _posterior_gain(problem, r2 * eye(D.shape[-1], D))
        return _reverse(problem, D - K @ problem.A @ D, K, sigma, sigma_next, eta)

    return rule


def tmpd(eta: float) -> Rule:
    """The mean of x0 with the row sums of A C A^T in its place; for problems of one block."""

    def rule(problem: Problem, sigma: float, sigma_next: float) -> Step:
        A, D = problem.A, denoiser(problem, sigma)
        spread = sigma**2 * D @ A.mH
        q = (A @ spread).sum(dim=-1).clamp(min=0)
        K = spread / (problem.sigma**2 + q)[..., None, :]
        return _reverse(problem, D - K @ A @ D, K, sigma, sigma_next, eta)

    return rule


def unguided(problem: Problem, sigma: float, sigma_next: float) -> Step:
    """An ancestral step of the prior, which knows nothing of y."""
    D = denoiser(problem, sigma)
    return _reverse(problem, D, torch.zeros_like(problem.gain), sigma, sigma_next, eta=1.0)


def draw_near(problem: Problem, rho: float) -> Step:
    """z ~ p(y | z) N(z; x, rho^2), the likelihood step of split Gibbs sampling."""
    A, one = problem.A, eye(problem.S.shape[-1], problem.S)
    cov = torch.linalg.inv(A.mH @ A / problem.sigma**2 + one / rho**2)
    return Step(cov / rho**2, cov @ A.mH / problem.sigma**2, cov)


def diffpir(coupling: float, stochasticity: float) -> Rule:
    """The proximal point of the denoised image; a share of the noise is drawn anew."""

    def rule(problem: Problem, sigma: float, sigma_next: float) -> Step:
        A, D, one = problem.A, denoiser(problem, sigma), eye(problem.S.shape[-1], problem.S)
        if sigma_next == 0:
            return Step(D, torch.zeros_like(problem.gain), 0 * D)
        rho = coupling * problem.sigma**2 / sigma**2
        inverse = torch.linalg.inv(A.mH @ A + rho * one)
        kept = (1 - stochasticity) ** 0.5 * sigma_next / sigma
        return Step(
            (1 - kept) * rho * inverse @ D + kept * one,
            (1 - kept) * inverse @ A.mH,
            stochasticity * sigma_next**2 * one.expand_as(D),
        )

    return rule


def ddrm(eta: float) -> Rule:
    """Each singular coordinate of A is blended with the data by its noise (eta_b = 1).

    For problems in singular coordinates, see `singular_coordinates`, from `ddrm_start`.
    """

    def rule(problem: Problem, sigma: float, sigma_next: float) -> Step:
        D, pinv, level = denoiser(problem, sigma), *_data_levels(problem)
        stays = (1 - eta**2) ** 0.5 * sigma_next
        clear, unseen = level <= sigma_next, level.isinf()
        from_data = torch.where(clear, 1, stays / level.clamp(min=1e-30))
        from_data = torch.where(unseen, 0, from_data)
        from_state = torch.where(unseen, stays / sigma, 0)
        variance = torch.where(clear, sigma_next**2 - level**2, (eta * sigma_next) ** 2)
        from_denoised = 1 - from_data - from_state
        return Step(
            from_denoised[..., None] * D + torch.diag_embed(from_state),
            from_data[..., None] * pinv,
            torch.diag_embed(variance),
        )

    return rule


def ddrm_start(problem: Problem, sigma: float) -> Law:
    """DDRM's first state: the data where they are cleaner than the level, else white noise."""
    pinv, level = _data_levels(problem)
    clear = level <= sigma
    variance = sigma**2 - torch.where(clear, level**2, 0)
    return Law(clear[..., None] * pinv, torch.diag_embed(variance))


def singular_coordinates(problem: Problem) -> Problem:
    """The same problem, real or complex, in coordinates in which A is diagonal and >= 0."""
    _, s, Vh = torch.linalg.svd(problem.A, full_matrices=True)
    A = torch.zeros_like(problem.A.real)
    A.diagonal(dim1=-2, dim2=-1).copy_(s)
    return Problem(symmetric(Vh @ problem.S @ Vh.mH), A.to(problem.A), problem.sigma)


def _data_levels(problem: Problem) -> tuple[Tensor, Tensor]:
    """A^+ of a diagonal A, (..., n, m), and the noise of A^+ y in each coordinate, (..., n)."""
    s = problem.A.diagonal(dim1=-2, dim2=-1).real
    seen = s > 0
    inverse = torch.where(seen, 1 / torch.where(seen, s, 1), 0)
    pinv = torch.zeros_like(problem.gain)
    pinv.diagonal(dim1=-2, dim2=-1).copy_(inverse)
    level = torch.full(problem.S.shape[:-1], torch.inf, dtype=s.dtype, device=s.device)
    level[..., : s.shape[-1]] = torch.where(seen, problem.sigma * inverse, torch.inf)
    return pinv, level


def _posterior_gain(problem: Problem, C: Tensor) -> Tensor:
    A = problem.A
    gram = A @ C @ A.mH + problem.sigma**2 * eye(A.shape[-2], A)
    return right_solve(C @ A.mH, gram)


def _reverse(
    problem: Problem, X: Tensor, Y: Tensor, sigma: float, sigma_next: float, eta: float
) -> Step:
    keep, added = step_coefficients(sigma, sigma_next, eta)
    one = eye(problem.S.shape[-1], problem.S)
    return Step((1 - keep) * X + keep * one, (1 - keep) * Y, added**2 * one.expand_as(X))
