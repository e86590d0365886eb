import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from skimage.restoration import denoise_tv_chambolle

from genprior.api.restoration import restore
from genprior.inverse.baselines.total_variation import TotalVariation, _gradient, _gradient_adjoint
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting


def test_the_gradient_has_its_adjoint():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64)
    p = torch.randn(2, 2, 3, 5, 6, generator=generator, dtype=torch.float64)
    difference = (_gradient(x) * p).sum() - (x * _gradient_adjoint(p)).sum()
    assert abs(difference) < 1e-12


def test_denoising_equals_scikit_images():
    generator = torch.Generator().manual_seed(1)
    y = torch.rand(2, 1, 12, 14, generator=generator)
    sigma = torch.tensor([0.1, 0.2])
    solver = TotalVariation(weight=5.0, iterations=1500)
    result = restore(y, Denoising(), None, solver, noise_std=sigma).image
    for i in range(2):
        weight = 5.0 * sigma[i].item() ** 2
        image = y[i, 0].double().numpy()
        expected = denoise_tv_chambolle(image, weight, eps=1e-12, max_num_iter=4000)
        assert np.abs(result[i, 0].numpy() - expected).max() < 1e-3


def test_no_picture_near_the_answer_has_less_energy():
    """The problem is convex: a local minimum is the minimum."""
    generator = torch.Generator().manual_seed(2)
    x = (torch.rand(1, 3, 10, 10, generator=generator) > 0.5).float()
    operator = Blur(torch.ones(3, 3), "circular")
    y = operator.A(x) + 0.05 * torch.randn(x.shape, generator=generator)

    def energy(u):
        tv = _gradient(u).square().sum(dim=(1, 2)).sqrt().sum()
        return ((operator.A(u) - y).square().sum() / 2 + 10 * 0.05**2 * tv).item()

    solver = TotalVariation(weight=10.0, iterations=2000)
    best = restore(y, operator, None, solver, noise_std=0.05).image
    for scale in (1e-3, 1e-2, 1e-1):
        for _ in range(20):
            other = best + scale * torch.randn(best.shape, generator=generator)
            assert energy(best) < energy(other)


def test_inpainting_has_the_least_variation_and_keeps_what_is_known():
    """On one line the least variation is a linear program."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(1, 1, 1, 30, generator=generator)
    keep = torch.rand(x.shape, generator=generator) > 0.5
    operator = Inpainting(keep)
    result = restore(operator.A(x), operator, None, TotalVariation(iterations=3000)).image
    assert torch.equal(result[keep], x[keep])
    n, D = 30, np.diff(np.eye(30), axis=0)
    rows = np.block([[D, -np.eye(n - 1)], [-D, -np.eye(n - 1)]])
    values = zip(x.flatten().tolist(), keep.flatten().tolist(), strict=True)
    bounds = [(v, v) if known else (0, 1) for v, known in values] + [(0, None)] * (n - 1)
    program = linprog(np.r_[np.zeros(n), np.ones(n - 1)], rows, np.zeros(2 * n - 2), bounds=bounds)
    assert result.diff(dim=-1).abs().sum().item() == pytest.approx(program.fun, abs=1e-3)


def test_what_is_to_be_tuned():
    assert "weight" in TotalVariation().choices(0.1) and not TotalVariation().choices(0.0)
