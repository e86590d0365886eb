import pytest
import torch
from oracles import Crooked, Dense, normals
from torch import Tensor

from genprior.core.linalg import Singular
from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver
from genprior.inverse.diffusion.daps import DAPS
from genprior.inverse.diffusion.krylov import krylov, spectral_function
from genprior.inverse.diffusion.mmps import MMPS
from genprior.inverse.diffusion.moment_matched import MomentMatched
from genprior.inverse.diffusion.moments import correction, draw_prior, moments, root
from genprior.operators.base import Operator
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.pca import PCA

SHAPE = (1, 3, 4)


def dense_cov(prior: Dense, sigma: float, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    S = prior.cov(shape)
    return S - S @ (S + sigma**2 * torch.eye(len(S)).double()).inverse() @ S


def test_moments_of_a_gaussian_are_its_own() -> None:
    prior, sigma = Dense(), 0.3
    x, v = normals(2, 2, *SHAPE)
    at = moments(prior, x, sigma)
    assert torch.equal(at.mean, prior.denoise(x, sigma))
    expected = v.flatten(1) @ dense_cov(prior, sigma)
    torch.testing.assert_close(at.cov(v).flatten(1), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(at.cov(v).flatten(1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("noise_std", [0.0, 0.05])
@pytest.mark.parametrize(
    "op",
    [Inpainting(random_keep((1, *SHAPE), 0.4)), SuperResolution(2, image_size=(3, 4))],
    ids=lambda op: type(op).__name__,
)
def test_the_correction_is_the_regression_by_dense_algebra(op: Operator, noise_std: float) -> None:
    prior, sigma = Dense(), 0.7
    x = normals(1, 1, *SHAPE)[0]
    unit = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *SHAPE)
    A, C = op.A(unit).flatten(1).T, dense_cov(prior, sigma)
    r = op.mask_unmeasured(normals(1, *op.A(x).shape, seed=1)[0])
    at = moments(prior, x, sigma)
    gram = A @ C @ A.T + noise_std**2 * torch.eye(len(A))
    expected = C @ A.T @ torch.linalg.pinv(gram, hermitian=True) @ r.flatten()
    got = correction(r, op, at, torch.tensor([noise_std**2]).double(), 40)
    torch.testing.assert_close(got.flatten(), expected, rtol=0, atol=1e-8)


def test_lanczos_gives_the_root_of_the_covariance() -> None:
    prior, sigma = Dense(), 0.3
    x, n = normals(2, 3, *SHAPE)
    values, vectors = torch.linalg.eigh(dense_cov(prior, sigma))
    expected = n.flatten(1) @ vectors * values.sqrt() @ vectors.T
    got = root(moments(prior, x, sigma), n, 12).flatten(1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    few = root(moments(prior, x, sigma), n, 3).flatten(1)
    assert 0 < (few - expected).norm() < 0.15 * expected.norm()
    # independent pixels have one eigenvalue: the basis ends after one vector
    alone = Dense(std=0.2, length=0)
    got = root(moments(alone, x, sigma), n, 4)
    size = (0.04 * 0.09 / (0.04 + 0.09)) ** 0.5
    torch.testing.assert_close(got, size * n, rtol=0, atol=1e-12)


def test_the_basis_does_not_depend_on_the_size_of_the_covariance() -> None:
    x, n = normals(2, 3, *SHAPE)
    at = moments(Dense(), x, 0.3)
    _, V, T = krylov(at.cov, n, 5)
    _, small, scaled = krylov(lambda v: 1e-7 * at.cov(v), n, 5)
    torch.testing.assert_close(small, V, rtol=0, atol=1e-8)
    torch.testing.assert_close(1e7 * scaled, T, rtol=0, atol=1e-12)


def test_a_non_symmetric_jacobian_gives_finite_roots() -> None:
    x, n = normals(2, 2, *SHAPE)
    got = root(moments(Crooked(), x, 0.3), n, 6)
    assert got.isfinite().all()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 2e-4)])
def test_square_roots_of_small_matrices(dtype: torch.dtype, atol: float) -> None:
    Q = torch.linalg.qr(normals(1, 4, 5, 5)[0]).Q
    values = torch.tensor([1.2, 0.5, 0.5, 1e-6, -0.05], dtype=torch.float64)
    T = ((Q * values) @ Q.mT).to(dtype)
    expected = (Q * values.clamp(min=0).sqrt()) @ Q.mT
    found = spectral_function(T, lambda values: values.clamp(min=0).sqrt())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=atol)
    assert not spectral_function(torch.zeros_like(T), torch.relu).any()


def test_draws_of_a_gaussian_prior_have_its_covariance() -> None:
    num_samples, sigma = 20000, 0.3
    U = torch.linalg.qr(normals(1, 12, 3)[0]).Q.mT.reshape(3, *SHAPE)
    variances = torch.tensor([0.5, 0.2, 0.1]).double()
    prior = PCA(torch.full(SHAPE, 0.5).double(), U, variances, 0.1)
    S = prior.cov(torch.eye(12).double().reshape(-1, *SHAPE)).flatten(1)
    x = torch.zeros(num_samples, *SHAPE).double()
    at = moments(prior, x, sigma)
    xi = draw_prior(prior, at, 0, Noise(0, range(num_samples))).flatten(1)
    C = S - S @ (S + sigma**2 * torch.eye(12).double()).inverse() @ S
    # an entry of an empirical covariance has variance (C_ii C_jj + C_ij^2) / num_samples
    scale = ((C.diagonal()[:, None] * C.diagonal() + C**2) / num_samples).sqrt()
    assert ((xi.T @ xi / num_samples - C) / scale).abs().max() < 5


@pytest.mark.parametrize("solver", [MomentMatched(2), DAPS(2, kernel="exact"), MMPS(2)], ids=repr)
def test_samples_have_the_type_of_the_measurement(solver: Solver) -> None:
    U = torch.linalg.qr(normals(1, 12, 3)[0]).Q.mT.reshape(3, *SHAPE)
    prior = PCA(torch.full(SHAPE, 0.5).double(), U, torch.tensor([0.5, 0.2, 0.1]).double(), 0.1)
    y = torch.zeros(2, *SHAPE)
    assert solver(y, Denoising(), prior, 0.1, Noise(0, [0, 1])).dtype == torch.float32


def test_singular_coordinates_rebuild_the_operator() -> None:
    op = SuperResolution(2, image_size=(3, 4))
    x = normals(1, 2, *SHAPE)[0]
    svd = op.singular(x.shape, x)
    assert isinstance(svd, Singular)
    torch.testing.assert_close(svd.data(op.A(x)), svd.values * svd.image(x), rtol=0, atol=1e-12)
