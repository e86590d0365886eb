import math

import pytest
import torch
from contracts import check_solver, dense, measure
from golden import distance6, spectrum
from oracles import Dense, Seeing, Stationary, normals
from torch import Tensor

from genprior.api.factory import default_solver, make_solver
from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.calibration import (
    bias_over_floor,
    misfit_ratio,
    std_ratio,
    z_scores,
)
from genprior.evaluation.gaussian_theory.exact_laws import Problem
from genprior.inverse.diffusion.moment_matched import MomentMatched
from genprior.inverse.diffusion.moments import Moments, inflated, rescaled
from genprior.inverse.diffusion.photo_covariance import photo_filter
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel, motion_kernel
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser
from genprior.priors.texture import Texture


def test_laws() -> None:
    check_solver(MomentMatched(steps=3))


@pytest.mark.parametrize(
    "steps", [1, 2, 10, pytest.param(100, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("index", "stochasticity"), [(0, None), (1, 1.0), (1, 0.3)])
def test_exact_for_gaussian_priors_in_any_number_of_steps(
    steps: int, index: int, stochasticity: float | None
) -> None:
    exact = {
        "full_above": 0,
        "extra_noise": 0,
        "max_inflation": 1,
        "max_rescaling": 1,
        "stochasticity": stochasticity,
    }
    solver = MomentMatched(steps, 12, **exact, sigma_max=1e4, sigma_min=0.01)
    assert distance6(solver, index) < 1e-5


@pytest.mark.parametrize("prior", [Dense(), Seeing()], ids=["denoiser", "inpainter"])
def test_lanczos_draws_what_a_gaussian_prior_gives_in_closed_form(prior: Dense) -> None:
    num_samples, noise_std, shape = 600, 0.05, (1, 5, 6)
    op = Inpainting(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) > 0.5)
    y = measure(op, prior.draw(1, shape), torch.tensor(noise_std))
    seen = op.mask.flatten() > 0.5
    A, S = torch.eye(30).double()[seen], prior.cov(shape)
    exact = Problem(S, A, noise_std)
    mean = 0.5 + exact.gain @ (y.flatten()[seen] - 0.5)
    noise = Noise(0, [(0, k) for k in range(num_samples)])
    # these priors are not `Gaussian`, so the sampler uses Lanczos
    x = MomentMatched()(y.expand(num_samples, -1, -1, -1), op, prior, noise_std, noise).flatten(1)
    z = z_scores(x, mean, exact.posterior_cov)
    # 2 % for 3 + 2 products a step, and 5 standard deviations of the estimate
    assert z.square().mean().item() == pytest.approx(1, abs=0.02 + 5 * (2 / z.numel()) ** 0.5)
    assert z.mean(dim=0).square().mean().item() < 2 / num_samples


@pytest.mark.parametrize("noise_std", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(
    "op",
    [
        Inpainting(random_keep((1, 1, 12, 12), 0.5)),
        Blur(gaussian_kernel(1.0), "circular"),
        SuperResolution(2, "bicubic", boundary="circular"),
    ],
    ids=lambda op: type(op).__name__,
)
def test_the_default_sampler_is_calibrated(op: Operator, noise_std: float) -> None:
    num_samples, shape = 64, (1, 12, 12)
    S = spectrum(12, 2)[1]
    law, prior = Texture.from_spectrum(S), Stationary(S)  # not `Gaussian` for the sampler
    first = Noise(3, [0])
    x = law.decode(first.normal(torch.zeros(1, *shape).double()), torch.Size((1, *shape)))
    y = measure(op, x, torch.tensor(noise_std))
    seen, matrix = op.mask_unmeasured(torch.ones_like(y)).flatten() > 0, dense(op, x)
    A, data = matrix[seen], y.flatten()[seen]
    cov = law.cov(torch.eye(144).double().reshape(-1, *shape)).flatten(1)
    exact = Problem(cov, A, noise_std)
    mean, P = 0.5 + exact.gain @ (data - A.sum(dim=1) / 2), exact.posterior_cov
    solver = make_solver(default_solver(op, prior, 2))
    assert solver.nfe + solver.jacobian_products <= 100
    noise = Noise(0, [(0, k) for k in range(num_samples)])
    samples = solver(y.expand(num_samples, *y.shape[1:]), op, prior, noise_std, noise).flatten(1)
    reached = A.abs().sum(dim=0) > 0
    for pixels in (reached, ~reached):
        if pixels.any():
            # 5 %, and 2 standard deviations of the estimate
            assert std_ratio(samples, P, pixels) == pytest.approx(1, abs=0.05 + 0.02)
    assert misfit_ratio(samples, data, A, mean, P) == pytest.approx(1, abs=0.05)
    assert bias_over_floor(samples, mean, P) < 1.25


def test_a_covariance_that_is_too_small_or_too_large_is_scaled_to_the_residuals() -> None:
    n, noise = (v for v in normals(2, 6, 1, 20, 20))
    y = 0.5 + 0.3 * n
    op, holes = Denoising(), Inpainting(random_keep((1, 1, 20, 20), 0.5))
    for std, factor in ((0.3, 1), (0.2, 2.25), (0.4, 0.5625), (0.1, 4), (0.9, 0.5)):
        at = Moments(torch.full_like(n, 0.5), lambda v, std=std: std**2 * v, 0.3)
        scaled, xi = inflated(y, op, at, std * noise, torch.zeros(6).double(), 4)
        torch.testing.assert_close(scaled.cov(n), factor * std**2 * n, rtol=0.35, atol=0)
        torch.testing.assert_close(xi**2, scaled.cov(noise) * noise, rtol=1e-9, atol=0)
        # measured pixels do not determine the scale in a hole
        same, xi = inflated(holes.A(y), holes, at, std * noise, torch.zeros(6).double(), 4)
        assert torch.equal(same.cov(n), at.cov(n)) and torch.equal(xi, std * noise)
    # noise that explains the residuals leaves C alone
    at = Moments(torch.full_like(n, 0.5), lambda v: 1e-6 * v, 0.3)
    scaled, _ = inflated(y, op, at, 1e-3 * noise, torch.full((6,), 0.09).double(), 4)
    torch.testing.assert_close(scaled.cov(n), 1e-6 * n, rtol=0.35, atol=0)


def test_a_covariance_is_scaled_to_the_last_draw() -> None:
    n, noise = (v for v in normals(2, 6, 1, 40, 40))
    x0, holes = 0.5 + 0.3 * n, Inpainting(random_keep((1, 1, 40, 40), 0.5))
    for std, factor in ((0.3, 1), (0.27, 1.235), (0.33, 0.826), (0.2, 1.5), (0.9, 1.5**-0.5)):
        at = Moments(torch.full_like(n, 0.5), lambda v, std=std: std**2 * v, 0.3)
        for op in (Denoising(), holes):  # where only missing pixels are compared
            draw = x0 if op is not holes else x0 + 5 * holes.mask
            scaled, xi = rescaled(draw, op, at, std * noise, 1.5)
            torch.testing.assert_close(scaled.cov(n), factor * std**2 * n, rtol=0.3, atol=0)
            torch.testing.assert_close(xi**2, scaled.cov(noise) * noise, rtol=1e-9, atol=0)


def test_a_covariance_is_not_rescaled_at_levels_below_the_noise() -> None:
    prior, op = Dense(), Blur(gaussian_kernel(1.0), "circular")
    levels = torch.tensor([0.5, 0.01]).double()
    y = measure(op, prior.draw(2, (1, 12, 11)), levels)
    scaled, unscaled = (
        MomentMatched(8, max_rescaling=max_factor)(y, op, prior, levels, Noise(0, [0, 1]))
        for max_factor in (1.75, 1.0)
    )
    assert torch.equal(scaled[0], unscaled[0])
    assert not torch.allclose(scaled[1], unscaled[1], atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20, 40])
def test_holes_take_no_more_evaluations_than_steps(steps: int) -> None:
    prior, op = Seeing(), Inpainting(random_keep((1, 1, 5, 6), 0.5))
    y = measure(op, prior.draw(1, (1, 5, 6)), torch.tensor(0.0))
    prior.calls.clear()
    prior.products = 0
    solver = MomentMatched(steps)
    solver(y, op, prior, 0.0, Noise(0, [0]))
    assert len(prior.calls) <= steps
    assert len(prior.calls) == steps or steps not in (1, 20)
    assert prior.products == solver.jacobian_products_for(op, prior) <= solver.jacobian_products


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_denoising_samples_exactly_for_gaussian_priors(steps: int) -> None:
    # the prior is not `Gaussian`, so the sampler uses all of the Lanczos steps
    prior, shape, num_samples, levels = Dense(), (1, 2, 4), 600, (0.05, 0.3, 2.0)
    y = measure(Denoising(), prior.draw(3, shape), torch.tensor(levels))
    noise = Noise(0, [(i, k) for i in range(3) for k in range(num_samples)])
    std = torch.tensor(levels).double().repeat_interleave(num_samples)
    x = MomentMatched(steps, root_products=8)(
        y.repeat_interleave(num_samples, dim=0), Denoising(), prior, std, noise
    ).reshape(3, num_samples, 8)
    for image, samples, level in zip(y.flatten(1), x, levels, strict=True):
        law = Problem(prior.cov(shape), torch.eye(8).double(), level)
        z = z_scores(samples, 0.5 + law.gain @ (image - 0.5), law.posterior_cov)
        assert abs(z.square().mean().item() - 1) < 4 * (2 / z.numel()) ** 0.5
        assert num_samples * z.mean(dim=0).square().mean().item() < 1 + 4 * (2 / 8) ** 0.5


class TwoModes(Denoiser):
    """The exact denoiser of pixels that are N(0.2, 0.05^2) or N(0.8, 0.05^2)."""

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        variance = per_image(sigma, x) ** 2 + 0.05**2
        mode = 0.2 + 0.6 * torch.sigmoid(0.6 * (x - 0.5) / variance)
        return mode + (x - mode) * 0.05**2 / variance


def test_denoising_samples_have_the_right_weights_of_modes() -> None:
    y, sigma = 0.45, 0.25
    noisy = torch.full((4, 1, 64, 64), y).double()
    x = MomentMatched()(noisy, Denoising(), TwoModes(), sigma, Noise(0, range(4)))
    right, variance = x[x > 0.5], sigma**2 + 0.05**2
    weight = 1 / (1 + math.exp(0.6 * (0.5 - y) / variance))
    assert len(right) / x.numel() == pytest.approx(
        weight, abs=3 * (weight * (1 - weight) / x.numel()) ** 0.5
    )
    assert right.mean().item() == pytest.approx(0.8 + (y - 0.8) * 0.05**2 / variance, abs=2e-3)
    assert right.std().item() == pytest.approx(0.05 * sigma / variance**0.5, rel=0.03)


@pytest.mark.parametrize("wrong", [{"max_inflation": 0.5}, {"max_rescaling": 0.9}])
def test_errors(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least 1, got"):
        MomentMatched(**wrong)


def test_samples_of_holes_by_an_inpainter_have_the_posterior(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior, shape, count, sigma = Seeing(), (1, 4, 4), 200, 0.05
    op = Inpainting(random_keep((1, *shape), 0.5))
    y = measure(op, prior.draw(1, shape), torch.tensor(sigma))
    seen = op.mask_unmeasured(torch.ones_like(y)).flatten() > 0
    law = Problem(prior.cov(shape), torch.eye(16).double()[seen], sigma)
    mean = 0.5 + law.gain @ (y.flatten()[seen] - 0.5)
    views = mean.reshape(1, *shape).expand(count, *shape)  # the same for all samples
    module = "genprior.inverse.diffusion.moment_matched"
    monkeypatch.setattr(f"{module}.mean_of_views", lambda *_: views)
    exact = {
        "full_above": 0,
        "extra_noise": 0,
        "max_inflation": 1,
        "max_rescaling": 1,
        "informed_max": 0.05,
    }
    solver = MomentMatched(6, 10, root_products=8, **exact, sigma_min=0.02)
    noise = Noise(0, [(0, k) for k in range(count)])
    x = solver(y.expand(count, *shape), op, prior, sigma, noise).flatten(1)
    z = z_scores(x, mean, law.posterior_cov)
    assert abs(z.square().mean().item() - 1) < 4 * (2 / z.numel()) ** 0.5
    assert count * z.mean(dim=0).square().mean().item() < 1 + 4 * (2 / 16) ** 0.5


class Photos(Denoiser):
    """The exact denoiser of the Gaussian model of photos."""

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        wiener = photo_filter(x, lambda S: S / (S + per_image(sigma, x) ** 2))
        return 0.5 + wiener(x - 0.5)


@pytest.mark.parametrize("boundary", ["valid", "reflect"])
@pytest.mark.parametrize("name", ["moment-matched", "mmps"])
def test_noise_free_motion_blurred_data_are_matched(name: str, boundary: str) -> None:
    op = Blur(motion_kernel(9, 30), boundary)
    n = normals(1, 2, 3, 40, 40)[0].float()
    y = op.A((0.5 + photo_filter(n, torch.sqrt)(n)).clamp(0, 1))
    x = make_solver(name, steps=20)(y, op, Photos(), 0.0, Noise(0, [0, 1]))
    assert (op.A(x) - y).square().mean().sqrt() < 0.015
