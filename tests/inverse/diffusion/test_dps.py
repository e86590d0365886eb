import math

import pytest
import torch
from contracts import check_solver, measure
from golden import grf12, mean_norm, spectrum
from oracles import Crooked, Replay, Stationary, normals
from papers import alpha_bars, ddpm, measurement, predict
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.dps import DPS
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser


def test_laws() -> None:
    check_solver(DPS(steps=5))


def published(
    y: Tensor, op: Operator, prior: Denoiser, zeta: float, steps: int, draws: list[Tensor]
) -> Tensor:
    """Algorithm 1 of the paper for one image, with autograd."""
    u, *rest = draws
    levels = alpha_bars(steps)
    for k, (a, a_next) in enumerate(zip(levels, levels[1:], strict=False)):
        u = u.detach().requires_grad_()
        u_hat = predict(prior, u, a)
        distance = (measurement(y, op, u) - op.A(u_hat)).square().sum().sqrt()
        gradient = torch.autograd.grad(distance, u)[0]
        z = rest[k] if k < len(rest) else torch.zeros_like(u)
        u = (ddpm(u, u_hat, z, a, a_next) - zeta * gradient).detach()
    return (u + 1) / 2


@pytest.mark.parametrize(
    "op",
    [
        Denoising(),
        Inpainting(random_keep((1, 1, 4, 6), 0.4)),
        Blur(torch.tensor([[1.0, 2, 4]]), "circular"),
        SuperResolution(2),
    ],
    ids=lambda op: type(op).__name__,
)
def test_agrees_with_the_paper_in_its_own_notation(op: Operator) -> None:
    steps, strength = 4, 30.0
    x, *draws = normals(1 + steps, 2, 3, 4, 6)
    y = measure(op, 0.5 + 0.2 * x, torch.tensor([0.0, 0.1]))
    ours = DPS(steps, strength)(y, op, Crooked(), 0.1, Replay(draws))
    zeta = strength * (op.num_measurements(y)[0].item() / (256 * 256 * 3)) ** 0.5
    for i in range(2):
        alone = [z[i : i + 1] for z in draws]
        theirs = published(y[i : i + 1], op, Crooked(), zeta, steps, alone)
        torch.testing.assert_close(ours[i : i + 1], theirs, rtol=0, atol=1e-10)


def test_the_gradient_step_does_not_depend_on_the_size_of_the_image() -> None:
    spectrum = 0.3 / (1 + 10 * torch.fft.fftfreq(8).double()[:, None] ** 2).expand(8, 6)
    # a tiled field has the small field's frequencies and no others
    wide = torch.zeros(16, 12, dtype=torch.float64)
    wide[::2, ::2] = spectrum
    wide[wide == 0] = 0.1
    keep = random_keep((1, 1, 8, 6), 0.5)
    x, *draws = normals(6, 1, 1, 8, 6)
    y = Inpainting(keep).A(0.5 + 0.2 * x)
    solver, tiles = DPS(steps=5, strength=3.0), (1, 1, 2, 2)
    small = solver(y, Inpainting(keep), Stationary(spectrum), 0.0, Replay(draws))
    large = solver(
        y.repeat(tiles),
        Inpainting(keep.repeat(tiles)),
        Stationary(wide),
        0.0,
        Replay([z.repeat(tiles) for z in draws]),
    )
    torch.testing.assert_close(large, small.repeat(tiles), rtol=0, atol=1e-12)


def test_without_strength_the_data_are_ignored() -> None:
    draws = normals(4, 1, 1, 5, 5)
    results = [
        DPS(steps=4, strength=0.0)(torch.full((1, 1, 5, 5), grey).double(), Denoising(),
                                   Crooked(), 0.1, Replay(draws))
        for grey in (0.2, 0.9)
    ]
    assert torch.equal(*results)


@pytest.mark.slow
@pytest.mark.parametrize(("strength", "golden"), [(1.0, 0.15288), (3.0, 0.04682), (10.0, 0.04949)])
def test_distance_to_the_posterior_is_as_computed_independently(strength, golden, monkeypatch):
    # The law is estimated per frequency from samples, each of its own measurement. The reference
    # used the mean of the squared norms, not the norm of each sample: 2 % apart at zeta 1.
    monkeypatch.setattr(torch.linalg, "vector_norm", mean_norm)
    count = 2000
    prior, (op, *_), _ = grf12()
    draws = Noise(1, list(range(count)))
    shape = torch.Size((count, 1, 12, 12))
    x = prior.decode(draws.normal(torch.zeros(prior.latent_shape(shape)).double()), shape)
    y = op.A(x) + 0.025 * draws.normal(x)
    samples = DPS(strength=strength)(y, op, prior, 0.025, Noise(0, list(range(count))))
    Y, X = (torch.fft.fft2(2 * image[:, 0] - 1, norm="ortho") for image in (y, samples))
    k2, S = spectrum(12, 2)
    S, h = 4 * S, torch.exp(-2 * math.pi**2 * k2)
    power, cov_y = Y.abs().square().sum(dim=0), h**2 * S + 0.05**2
    gain = (X * Y.conj()).sum(dim=0) / power
    variance = (X - gain * Y).abs().square().sum(dim=0) / (count - 1)
    # minus the variance of the estimated gain, which adds to its square
    mean2 = (gain - h * S / cov_y).abs().square() * cov_y - variance * cov_y / power
    bures2 = (variance.sqrt() - (S * 0.05**2 / cov_y).sqrt()).square()
    assert (mean2 + bures2).mean().sqrt().item() == pytest.approx(golden, rel=0.01)
