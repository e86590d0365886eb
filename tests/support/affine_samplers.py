"""Oracle: steps of eight diffusion samplers as matrices, for Gaussian priors; see `exact_laws`.

The state is x = x0 + s n. The denoiser is D = S (S + s^2 I)^{-1}, and C = s^2 D is the covariance
of x0 given x. With an estimate x_hat = X x + Y y, a step from noise level s to s' is

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
    """Yields the steps of a rule through decreasing noise levels, down to 0."""
    for sigma, sigma_next in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        yield rule(problem, sigma, sigma_next)


def denoiser(problem: Problem, sigma: float) -> Tensor:
    """Returns the denoiser D, shape (..., n, n)."""
    return right_solve(problem.S, problem.S + sigma**2 * eye(problem.S.shape[-1], problem.S))


def mmps(eta: float) -> Rule:
    """MMPS: x_hat is the exact mean of x0 given x and y, for a DDIM / DDPM step with `eta`."""

    def rule(problem: Problem, sigma: float, sigma_next: float) -> Step:
        D = denoiser(problem, sigma)
        K = _posterior_gain(problem, sigma**2 * D)
        return _reverse(problem, D - K @ problem.A @ D, K, sigma, sigma_next, eta)

    return rule


def moment_matched(problem: Problem, sigma: float, sigma_next: float) -> Step:
    """Moment matching: x0 is drawn given x and y, which is exact for any number of steps."""
    D = denoiser(problem, sigma)
    C = sigma**2 * D
    K = _posterior_gain(problem, C)
    step = _reverse(problem, D - K @ problem.A @ D, K, sigma, sigma_next, eta=1.0)
    keep = step_coefficients(sigma, sigma_next, 1.0)[0]
    spread = symmetric(C - K @ problem.A @ C)
    return Step(step.M, step.N, step.Q + (1 - keep) ** 2 * spread)


def pigdm(eta: float, prior_var: float, published: bool = False) -> Rule:
    """PiGDM: mean of x0 with r^2 I for C in the Gram matrix; or with the `published` weight."""

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
    """JFPS: mean of x0 with C replaced by r^2 I, without products with the Jacobian of D."""

    def rule(problem: Problem, sigma: float, sigma_next: float) -> Step:
        D = denoiser(problem, sigma)
        r2 = prior_var * sigma**2 / (prior_var + sigma**2)
        K = _posterior_gain(problem, r2 * eye(D.shape[-1], D))
        return _reverse(problem, D - K @ problem.A @ D, K, sigma, sigma_next, eta)

    return rule


def tmpd(eta: float) -> Rule:
    """TMPD: mean of x0 with A C A^T replaced by its row sums; for problems of one block."""

    def rule(problem: Problem, sigma: float, sigma_next: float) -> Step:
        A, D = problem.A, denoiser(problem, sigma)
        spread = sigma**2 * D @ A.mH
        q = (A @ spread).sum(dim=-1).clamp(min=0)
        K = spread / (problem.sigma**2 + q)[..., None, :]
        return _reverse(problem, D - K @ A @ D, K, sigma, sigma_next, eta)

    return rule


def unguided(problem: Problem, sigma: float, sigma_next: float) -> Step:
    """Returns an ancestral step of the prior, without guidance by y."""
    D = denoiser(problem, sigma)
    return _reverse(problem, D, torch.zeros_like(problem.gain), sigma, sigma_next, eta=1.0)


def draw_near(problem: Problem, rho: float) -> Step:
    """PnP-DM: likelihood step of split Gibbs sampling, z ~ p(y | z) N(z; x, rho^2)."""
    A, one = problem.A, eye(problem.S.shape[-1], problem.S)
    cov = torch.linalg.inv(A.mH @ A / problem.sigma**2 + one / rho**2)
    return Step(cov / rho**2, cov @ A.mH / problem.sigma**2, cov)


def diffpir(coupling: float, stochasticity: float) -> Rule:
    """DiffPIR: x_hat is the proximal point of the denoised image; part of the noise is redrawn."""

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
    """DDRM with eta_b = 1: blends each singular coordinate with the data, weighted by its noise.

    The problem must be in `singular_coordinates`, and the first state that of `ddrm_start`.
    """

    def rule(problem: Problem, sigma: float, sigma_next: float) -> Step:
        D, pinv, level = denoiser(problem, sigma), *_data_levels(problem)
        kept = (1 - eta**2) ** 0.5 * sigma_next
        cleaner, unobserved = level <= sigma_next, level.isinf()
        from_data = torch.where(cleaner, 1, kept / level.clamp(min=1e-30))
        from_data = torch.where(unobserved, 0, from_data)
        from_state = torch.where(unobserved, kept / sigma, 0)
        variance = torch.where(cleaner, sigma_next**2 - level**2, (eta * sigma_next) ** 2)
        from_denoised = 1 - from_data - from_state
        return Step(
            from_denoised[..., None] * D + torch.diag_embed(from_state),
            from_data[..., None] * pinv,
            torch.diag_embed(variance),
        )

    return rule


def ddrm_start(problem: Problem, sigma: float) -> Law:
    """Returns DDRM's first state: data where their noise is below the level, else white noise."""
    pinv, level = _data_levels(problem)
    cleaner = level <= sigma
    variance = sigma**2 - torch.where(cleaner, level**2, 0)
    return Law(cleaner[..., None] * pinv, torch.diag_embed(variance))


def singular_coordinates(problem: Problem) -> Problem:
    """Returns the same problem, real or complex, in coordinates where A is diagonal and >= 0."""
    _, s, Vh = torch.linalg.svd(problem.A, full_matrices=True)
    A = torch.zeros_like(problem.A.real)
    A.diagonal(dim1=-2, dim2=-1).copy_(s)
    return Problem(symmetric(Vh @ problem.S @ Vh.mH), A.to(problem.A), problem.sigma)


def _data_levels(problem: Problem) -> tuple[Tensor, Tensor]:
    """Returns A^+ of a diagonal A, (..., n, m), and the noise level of A^+ y, (..., n)."""
    s = problem.A.diagonal(dim1=-2, dim2=-1).real
    observed = s > 0
    inverse = torch.where(observed, 1 / torch.where(observed, s, 1), 0)
    pinv = torch.zeros_like(problem.gain)
    pinv.diagonal(dim1=-2, dim2=-1).copy_(inverse)
    level = torch.full(problem.S.shape[:-1], torch.inf, dtype=s.dtype, device=s.device)
    level[..., : s.shape[-1]] = torch.where(observed, problem.sigma * inverse, torch.inf)
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
