import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.signal import convolve2d

from genprior.inverse.blind.kernel_fit import fit_kernel, project_to_simplex


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blurred(x, k):
    planes = [convolve2d(plane, k[0, 0], mode="valid") for plane in x[:, 0].numpy()]
    return torch.from_numpy(np.stack(planes))[:, None]


@pytest.mark.parametrize(("h", "w"), [(5, 7), (1, 4), (6, 3)])
def test_the_kernel_of_exact_data_is_found(h, w):
    k = normal(1, 1, h, w).clamp(min=0)  # some values are 0
    k = k / k.sum()
    x = normal(2, 1, 41, 36, seed=1)
    found = fit_kernel(x, blurred(x, k), iterations=300)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, k, atol=1e-6, rtol=0)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_the_fit_agrees_with_a_solver_of_quadratic_programs(ridge):
    x, k = normal(1, 1, 16, 15), torch.diag(torch.ones(3).double() / 3)[None, None]
    y = blurred(x, k) + 0.5 * normal(1, 1, 14, 13, seed=2)
    windows = x[0, 0].unfold(0, 3, 1).unfold(1, 3, 1).flip(-1, -2).reshape(-1, 9).numpy()
    weight = ridge * x.square().sum().item()
    heavy = 1e5  # sum 1, as a heavy row
    rows = [windows, weight**0.5 * np.eye(9), heavy * np.ones((1, 9))]
    data = np.concatenate([y.flatten().numpy(), np.zeros(9), [heavy]])
    expected, _ = scipy.optimize.nnls(np.concatenate(rows), data)
    found = fit_kernel(x, y, ridge=ridge, iterations=500).flatten()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert ridge or (expected == 0).any()


def test_constant_images_keep_the_start():
    x = torch.zeros(1, 1, 12, 12)
    start = torch.tensor([[[[0.25, 0.75]]]])
    assert torch.equal(fit_kernel(x, x[..., 1:], start), start)


def test_y_is_not_larger_than_x():
    x = torch.zeros(1, 1, 12, 12)
    with pytest.raises(ValueError, match="y must not be larger than x"):
        fit_kernel(x[..., 1:], x)


def test_projection_onto_the_simplex_is_optimal():
    v = normal(40)
    p = project_to_simplex(v)
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert (p >= 0).all()
    # v - p is normal to the simplex at p: constant where p > 0, and not larger elsewhere
    normals = v - p
    level = normals[p > 0].mean()
    torch.testing.assert_close(normals[p > 0], level.expand(int((p > 0).sum())))
    assert (normals[p == 0] <= level + 1e-12).all()
