import math

import pytest
import torch
from contracts import check_solver, dense, measure, measurements
from oracles import Crooked, Dense, normals
from torch import Tensor

from genprior import make_operator, restore
from genprior.core.errors import RestorationWarning
from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.calibration import z_scores
from genprior.evaluation.gaussian_theory.exact_laws import Problem
from genprior.inverse.diffusion.likelihood import log_likelihood, predicted_moments
from genprior.inverse.diffusion.moments import Moments, moments
from genprior.inverse.diffusion.smc import SMC, _ParticleBatch
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser
from genprior.priors.gmm import GMM


def test_laws() -> None:
    check_solver(SMC(steps=3, particles=3, iterations=2))


@pytest.mark.parametrize("size", [(4, 4), (6, 8)], ids=["dense", "krylov"])
@pytest.mark.parametrize("noise_std", [0.05, 0.3])
def test_the_likelihood_is_exact_for_gaussian_priors(
    size: tuple[int, int], noise_std: float
) -> None:
    prior, sigma, shape = Dense(length=0.7), 0.4, (1, *size)
    op = SuperResolution(2, "box") if size == (4, 4) else Inpainting(random_keep((1, *shape), 0.8))
    x = 0.5 + 0.4 * normals(1, 6, *shape)[0]
    y = measure(op, prior.draw(1, shape), torch.tensor(noise_std)).expand(6, -1, -1, -1)
    at = moments(prior, x, sigma)
    found = log_likelihood(y, op, at, torch.full((6,), noise_std**2).double(), 30)
    A = dense(op, x[:1])
    seen = A.abs().sum(dim=1) > 0
    A, S = A[seen], prior.cov(shape)
    C = S - S @ (S + sigma**2 * torch.eye(len(S)).double()).inverse() @ S
    gram = A @ C @ A.T + noise_std**2 * torch.eye(len(A)).double()
    D = prior.denoise(x, sigma).flatten(1)
    law = torch.distributions.MultivariateNormal(D @ A.T, gram)
    expected = law.log_prob(y.flatten(1)[:, seen])
    # one constant is left out, the same for all x
    difference = found.flatten(1).sum(dim=1) - expected
    assert (difference - difference.mean()).abs().max() < 1e-6


@pytest.mark.parametrize("size", [(4, 4), (6, 8)], ids=["dense", "krylov"])
def test_a_covariance_with_negative_eigenvalues_gives_a_likelihood(size: tuple[int, int]) -> None:
    x = normals(1, 3, 1, *size)[0]
    op = Inpainting(random_keep((1, 1, *size), 0.5))
    at = moments(Crooked(), x, 0.3)
    unit = torch.eye(x[0].numel()).double().reshape(-1, 1, 1, *size)
    J = torch.stack([at.cov(e.expand_as(x)).flatten(1) for e in unit], dim=2)
    assert torch.linalg.eigvalsh((J + J.mT) / 2).min() < -1e-3
    found = log_likelihood(op.A(x), op, at, torch.full((3,), 1e-4).double(), 8)
    assert found.isfinite().all()


def test_predicted_moments_are_exact_for_gaussian_priors() -> None:
    prior, shape = Dense(length=0.7), (1, 3, 4)
    x, x_next, v = (0.5 + 0.4 * n for n in normals(3, 2, *shape))
    after = predicted_moments(moments(prior, x, 0.4), x, x_next, 0.25, 12)
    there = moments(prior, x_next, 0.25)
    torch.testing.assert_close(after.mean, there.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(after.cov(v), there.cov(v), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("steps", "block"), [(1, 16), (4, 16), (4, 2)])
def test_exact_for_gaussian_priors_in_any_number_of_steps(steps: int, block: int) -> None:
    runs, noise_std, shape = 500, 0.1, (1, 1, 4)
    prior = Dense()
    op = Inpainting(torch.tensor([[[[1, 0, 1, 0]]]]))
    y = measure(op, prior.draw(1, shape), torch.tensor(noise_std))
    A, S = torch.eye(4).double()[[0, 2]], prior.cov(shape)
    exact = Problem(S, A, noise_std)
    mean = 0.5 + exact.gain @ (y.flatten()[[0, 2]] - 0.5)
    noise = Noise(0, [(0, k) for k in range(runs)])
    solver = SMC(steps, particles=4, iterations=4, root_products=4, block=block)
    x = solver(y.expand(runs, -1, -1, -1), op, prior, noise_std, noise)
    z = z_scores(x.flatten(1), mean, exact.posterior_cov)
    assert z.mean(dim=0).abs().max() < 4 / math.sqrt(runs)
    assert abs(z.square().mean().item() - 1) < 4 * math.sqrt(2 / z.numel())


@pytest.mark.parametrize("block", [16, 2])
def test_weights_are_equal_for_gaussian_priors(block: int) -> None:
    op = Inpainting(torch.tensor([[[[1, 0, 1, 0]]]]))
    y = measure(op, Dense().draw(1, (1, 1, 4)), torch.tensor(0.1))
    # the first state is pure noise, and later likelihoods equal their predictions
    solver = SMC(4, particles=8, iterations=4, root_products=4, sigma_max=1e3, block=block)
    _, size = solver.run(y, op, Dense(), 0.1, Noise(0, [0]))
    assert size.item() == pytest.approx(8, abs=0.01)


@pytest.mark.parametrize("size", [(4, 4), (6, 8)], ids=["dense", "krylov"])
def test_the_likelihood_is_a_sum_over_the_entries_of_the_measurement(
    size: tuple[int, int],
) -> None:
    # of the dense solve every share is exact; of the other r_i (G^-1 r)_i and the total are
    shape, noise_std = (1, *size), 0.3
    op, S = Inpainting(random_keep((1, *shape), 0.4)), Dense(length=0.7).cov(shape)
    at = Moments(torch.full((1, *shape), 0.5).double(),
                 lambda v: (v.flatten(1) @ S).reshape(v.shape), 0.4)
    variance = torch.full((1,), noise_std**2).double()
    y = op.A(0.5 + 0.4 * normals(1, 1, *shape)[0])
    shares = [log_likelihood(v, op, at, variance, 30) for v in (y, op.A(at.mean))]
    A = dense(op, at.mean)
    seen = A.abs().sum(dim=1) > 0
    G = A[seen] @ S @ A[seen].T + noise_std**2 * torch.eye(int(seen.sum())).double()
    values, V = torch.linalg.eigh(G)
    r = (y - op.A(at.mean)).flatten()[seen]
    distance, log_G = r * torch.linalg.solve(G, r), (V * values.log()) @ V.T
    found = (shares[0] - shares[1]).flatten()
    assert (found[seen] + distance / 2).abs().max() < 1e-6
    assert (found[~seen] == 0).all()
    if size == (4, 4):
        assert (shares[1].flatten()[seen] + log_G.diagonal() / 2).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["circular blur", "valid blur", "superres", "inpainting"])
def test_pixels_share_the_whole_likelihood(name: str) -> None:
    op, shape = next((op, shape) for each, op, shape in measurements(3) if each == name)
    x = 0.5 + 0.3 * normals(1, 3, *shape)[0]
    at, y = moments(Dense(), x, 0.4), op.A(Dense().draw(3, shape))
    batch = _ParticleBatch(y, op, torch.full((3,), 0.2).double(), Noise(0, range(3)), 1)
    whole, cut = (SMC(block=side)._log_likelihood(at, batch) for side in (16, 2))
    assert cut.shape == (3, 1, *shape[1:])
    torch.testing.assert_close(cut.sum((1, 2, 3)), whole.sum((1, 2, 3)), rtol=1e-9, atol=0)
    assert (cut.std(dim=(2, 3)) > 0).all()


class Patches(Denoiser):
    """Independent patches of 2 x 2 pixels, each drawn from a mixture."""

    def __init__(self, law: GMM) -> None:
        self.law = law

    def cut(self, x: Tensor) -> Tensor:
        parts = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return parts.permute(0, 2, 4, 1, 3, 5).reshape(-1, 1, 2, 2)

    def joined(self, patches: Tensor, shape: torch.Size) -> Tensor:
        rows, columns = (length // 2 for length in shape[2:])
        parts = patches.reshape(-1, rows, columns, 2, 2)
        return parts.transpose(2, 3).reshape(-1, 1, *shape[2:])

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.joined(self.law.denoise(self.cut(x), sigma), x.shape)


def test_blocks_find_the_weights_of_modes_of_many_patches() -> None:
    particles, noise_std, side = 48, 1.0, 16
    means = torch.tensor([0.2, 0.8]).double().reshape(2, 1, 1, 1).expand(-1, 1, 2, 2)
    covs = 0.01 * torch.eye(4).double().repeat(2, 1, 1)
    prior = Patches(GMM(torch.tensor([0.7, 0.3]).double(), means, covs))
    y = measure(Denoising(), prior.joined(
        prior.law.sample(64, torch.Generator().manual_seed(0)), (1, 1, side, side)
    ), torch.tensor(noise_std))
    eye = torch.eye(4).double()
    laws = [prior.law.posterior(v, eye, noise_std) for v in prior.cut(y).flatten(1)]
    exact = torch.stack([law.log_weights.exp()[1] for law in laws])
    errors, sizes = [], []
    for block in (4, side):
        solver = SMC(12, particles=particles, block=block)
        cloud, size = solver.cloud(
            y, Denoising(), prior, torch.tensor([noise_std]).double(), Noise(0, [0])
        )
        share = (prior.cut(cloud[0]).mean((1, 2, 3)) > 0.5).double().reshape(particles, -1).mean(0)
        errors.append((share - exact).square().mean().sqrt().item())
        sizes.append(size.item())
    assert sizes[0] > particles / 2 > particles / 4 > sizes[1]
    # resampling at several levels adds to the variance of one draw of independent particles
    ideal = (exact * (1 - exact) / particles).mean().sqrt().item()
    assert errors[0] < 2 * ideal < errors[1]


def test_the_effective_sample_size_is_reported_and_a_collapse_is_a_warning() -> None:
    # one iteration does not solve the linear systems, so that the weights are wrong
    prior = Dense(dtype=torch.float32)
    operator = make_operator("inpaint", keep=random_keep((1, 1, 12, 12), 0.5))
    y = operator.A(prior.draw(1, (1, 12, 12)))
    solver = SMC(6, particles=16, iterations=1, root_products=1, block=12)
    with pytest.warns(RestorationWarning, match=r"effective sample size .* fell to 1\.. of 16"):
        found = restore(y, operator, prior, solver, noise_std=0.02, samples=2)
    assert 1 <= found.effective_sizes.item() < 1 + 15 / 8
    assert "effective sample size" in found.facts
    assert restore(y, operator, prior, "jfps", noise_std=0.02).effective_sizes is None


def test_modes_have_their_posterior_weights() -> None:
    # two modes far apart; y is nearer to the rare one, but noisy
    means = torch.tensor([[[[-3.0, 0.0]]], [[[4.0, 0.0]]]]).double()
    prior = GMM(torch.tensor([0.85, 0.15]).double(), means, torch.eye(2).double().repeat(2, 1, 1))
    op, noise_std = Inpainting(torch.tensor([[[[1, 0]]]])), 3.0
    y = torch.tensor([[[[1.2, 0.0]]]]).double()
    posterior = prior.posterior(y.flatten()[:1], torch.tensor([[1.0, 0.0]]).double(), noise_std)
    weight = posterior.log_weights.exp()[1].item()
    cloud, _ = SMC(30, particles=1000, root_products=3).cloud(
        y, op, prior, torch.tensor([noise_std]).double(), Noise(0, [0])
    )
    share = (cloud[0, :, 0, 0, 0] > 0.5).double().mean().item()
    inside = torch.distributions.Normal(0.0, 1.0)
    right = inside.cdf((posterior.means[1, 0] - 0.5) / posterior.variances[1].sqrt().min()).item()
    left = inside.cdf((0.5 - posterior.means[0, 0]) / posterior.variances[0].sqrt().min()).item()
    expected = weight * right + (1 - weight) * (1 - left)
    assert share == pytest.approx(expected, abs=0.06)


def test_errors() -> None:
    with pytest.raises(ValueError, match="block must be at least 1, got 0"):
        SMC(block=0)
    with pytest.raises(ValueError, match="particles must be at least 1, got 0"):
        SMC(particles=0)


@pytest.mark.parametrize(("size", "error"), [((4, 4), 1e-7), ((6, 8), 0.5)])
def test_the_likelihood_depends_on_the_determinant_of_the_covariance(
    size: tuple[int, int], error: float
) -> None:
    # for the larger size log det is estimated from one probe
    op, noise_std, shape = Inpainting(random_keep((1, 1, *size), 0.2)), 0.1, (1, *size)
    scale = torch.tensor([1.0, 4.0, 0.2]).double().reshape(-1, 1, 1, 1)
    S, mean = Dense(length=0.7).cov(shape), torch.full((3, *shape), 0.5).double()
    at = Moments(mean, lambda v: scale * (v.flatten(1) @ S).reshape(v.shape), 0.4)
    found = log_likelihood(op.A(mean), op, at, torch.full((3,), noise_std**2).double(), 30)
    A = dense(op, mean[:1])
    A = A[A.abs().sum(dim=1) > 0]
    grams = scale[:, 0] * (A @ S @ A.T) + noise_std**2 * torch.eye(len(A)).double()
    found, expected = found.flatten(1).sum(dim=1), -torch.logdet(grams) / 2
    found, expected = found - found[0], expected - expected[0]
    assert ((found - expected)[1:].abs() <= error * expected[1:].abs()).all()
