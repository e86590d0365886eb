import math

import pytest
import torch
from contracts import check_solver, measure, measurements
from linear import posterior_means
from oracles import Dense
from torch import Tensor

from genprior import restore
from genprior.core.random_streams import Noise
from genprior.inverse.optimization.jpmap import JPMAP, NOISE_FLOOR, PnPHVAE
from genprior.inverse.tikhonov import smooth_start
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.base import Variational
from genprior.priors.hvae import HVAE

NOISE = Noise(0, [0, 1, 2])
SIGMA = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
PROBLEMS = [pytest.param(*rest, id=name) for name, *rest in measurements(3)]


class Linear(Dense, Variational):
    """x = mean + L z + std n with L L^T + std^2 I = S: what a linear autoencoder learns."""

    spread = 0.1

    @property
    def decoder_std(self) -> Tensor:
        return torch.tensor(self.spread)

    def law(self, shape: torch.Size, like: Tensor) -> Tensor:
        """S, float64."""
        values, vectors = self._spectrum(shape, like)
        return vectors @ torch.diag(values + self.spread**2) @ vectors.mT

    def encode(self, x: Tensor) -> Tensor:
        return self._posterior(x, 1.0)

    def reconstruct(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        return self.decode(self._posterior(x, temperature), x.shape)

    def _posterior(self, x: Tensor, temperature: float) -> Tensor:
        if temperature == 1.0:
            self.calls.append(x.shape)
        values, vectors = self._spectrum(x.shape[1:], x)
        gain = values.sqrt() / (values + (self.spread / temperature) ** 2)
        return (x - self.mean).flatten(1) @ vectors * gain


@pytest.mark.parametrize("solver", [JPMAP(2, 2, 3), PnPHVAE(3)], ids=str)
def test_laws(solver, monkeypatch) -> None:
    import contracts

    monkeypatch.setattr(contracts, "Dense", Linear)
    check_solver(solver, ("inpainting", "superres"), seeded=False)


@pytest.mark.parametrize("op, shape", PROBLEMS)
def test_jpmap_with_a_linear_decoder_is_the_posterior_mean(op, shape) -> None:
    prior = Linear()
    y = measure(op, prior.draw(3, shape), SIGMA)
    exact = posterior_means(op, prior.law(shape, y), y, SIGMA, 0.5)
    x = JPMAP(final=200)(y, op, prior, SIGMA, NOISE)
    assert ((x - exact).flatten(1).norm(dim=1) / (exact - 0.5).flatten(1).norm(dim=1)).max() < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_jpmap_begins_with_a_tenth_of_the_weight(steps: int, monkeypatch) -> None:
    weights, prox = [], Denoising.prox

    def record(self: Denoising, x: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        weights.append(rho.flatten()[0].item())
        return prox(self, x, y, rho)

    monkeypatch.setattr(Denoising, "prox", record)
    y = Linear().draw(3, (1, 5, 4))
    JPMAP(steps, final=1)(y, Denoising(), Linear(), torch.full((3,), 0.2), NOISE)
    found = torch.tensor(weights[:steps]) * Linear.spread**2 / 0.2**2
    expected = torch.logspace(-1, 0, steps) if steps > 1 else torch.ones(1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_fixed_point_of_pnp_hvae_has_its_closed_form(temperature: float) -> None:
    # at temperature T the prior of z has standard deviation T
    prior, shape = Linear(std=0.15), (1, 5, 4)
    op = Inpainting(random_keep((3, 1, 5, 4), 0.3))
    y = measure(op, prior.draw(3, shape), SIGMA)
    values, vectors = prior._spectrum(shape, y)
    S = vectors @ torch.diag(temperature**2 * values + prior.spread**2) @ vectors.mT
    exact = posterior_means(op, S, y, SIGMA, 0.5)
    x = PnPHVAE(3000, temperature)(y, op, prior, SIGMA, NOISE)
    torch.testing.assert_close(x, exact, rtol=0, atol=1e-6)


def test_pnp_hvae_runs_on_a_hierarchy() -> None:
    torch.manual_seed(0)
    prior = HVAE(latent=2, widths=(4, 6), groups=(1, 1), channels=1).double().eval()
    for p in prior.requires_grad_(False).parameters():
        p += 0.15 * torch.randn(p.shape, dtype=p.dtype)
    prior.log_std.fill_(math.log(0.1))  # which the fit to the second image depends on
    op = Inpainting(random_keep((2, 1, 9, 6), 0.5))
    y = op.A(torch.rand(2, 1, 9, 6, generator=torch.Generator().manual_seed(0)).double())
    sigma = torch.tensor([0.1, 0.0], dtype=torch.float64)
    x = smooth_start(y, op)
    with torch.no_grad():
        for _ in range(2):
            rho = sigma.clamp(min=NOISE_FLOOR) ** 2 / prior.decoder_std.to(y) ** 2
            x = op.prox(prior.reconstruct(x, 0.7), y, rho)
    found = PnPHVAE(2, 0.7)(y, op, prior, sigma, Noise(0, [0, 1]))
    torch.testing.assert_close(found, x, rtol=0, atol=1e-9)
    assert (op.A(found) - y)[1].abs().max() < 1e-3
    # a lower temperature is another prior
    assert (PnPHVAE(2, 0.1)(y, op, prior, sigma, Noise(0, [0, 1])) - found).abs().max() > 1e-4


def test_the_std_of_the_decoder_can_be_given() -> None:
    prior = Linear()
    y = prior.draw(3, (1, 5, 4))
    given = [s(y, Denoising(), prior, 0.2, NOISE) for s in (JPMAP(decoder_std=0.1), JPMAP())]
    torch.testing.assert_close(*given)
    other = JPMAP(decoder_std=0.3)(y, Denoising(), prior, 0.2, NOISE)
    assert (other - given[0]).abs().max() > 1e-3


def test_a_variational_autoencoder_is_restored_with_by_default() -> None:

    from autoencoders import STD, linear_vae

    prior, b, S = linear_vae((1, 4, 3))
    op = Inpainting(random_keep((2, 1, 4, 3), 0.4))
    y = op.A(torch.rand(2, 1, 4, 3, generator=torch.Generator().manual_seed(0)))
    result = restore(y, op, prior.float(), noise_std=0.1)
    assert result.solver == "jpmap" and STD == 0.2
    A = torch.diag(op.mask_unmeasured(torch.ones_like(y))[0].flatten()).double()
    gram = A @ S @ A + 0.01 * torch.eye(12, dtype=S.dtype)
    exact = b + S @ A @ torch.linalg.solve(gram, y[0].flatten().double() - A @ b)
    torch.testing.assert_close(result.image[0].flatten().double(), exact, rtol=0, atol=1e-3)


def test_errors() -> None:
    with pytest.raises(ValueError, match="descent and final must be at least 1, got 0 and 24"):
        JPMAP(descent=0)
    with pytest.raises(ValueError, match=r"temperature must be in \(0, 1\], got 1.5"):
        PnPHVAE(temperature=1.5)
    with pytest.raises(ValueError, match="decoder_std must be > 0 and finite, or None, got 0"):
        JPMAP(decoder_std=0)
