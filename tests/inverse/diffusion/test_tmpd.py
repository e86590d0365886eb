import pytest
import torch
from contracts import check_solver, dense, measure
from golden import distance12
from oracles import Crooked, Dense, Replay, normals
from papers import alpha_bars, ddim, measurement, predict
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.mmps import MMPS
from genprior.inverse.diffusion.tmpd import TMPD
from genprior.operators.base import Operator
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.texture import Texture


def test_laws() -> None:
    check_solver(TMPD(steps=4))


@pytest.mark.parametrize(
    "op",
    [Denoising(), Inpainting(random_keep((1, 1, 4, 4), 0.4)), SuperResolution(2, "box")],
    ids=lambda op: type(op).__name__,
)
@pytest.mark.parametrize(("noise_std", "eta"), [(0.02, 1.0), (0.1, 0.4)])
def test_agrees_with_the_paper_in_its_own_notation(
    op: Operator, noise_std: float, eta: float
) -> None:
    x, *draws = normals(4, 1, 2, 4, 4)
    y = measure(op, 0.5 + 0.2 * x, torch.tensor(noise_std))
    ours = TMPD(3, eta, spacing="ddpm")(y, op, Crooked(), noise_std, Replay(draws))
    u, *rest = draws
    A, v = dense(op, u), measurement(y, op, u)
    levels = alpha_bars(3)
    for k, (a, a_next) in enumerate(zip(levels, levels[1:], strict=False)):
        u_hat = predict(Crooked(), u, a)
        J = torch.autograd.functional.jacobian(lambda w, a=a: predict(Crooked(), w, a), u)
        V = (1 - a) / a**0.5 * J.reshape(u.numel(), u.numel()).mT
        sums = (A @ V @ A.mT @ (A.abs().sum(1) > 0).to(A)).clamp(min=0)
        r = (v - op.A(u_hat)).flatten()
        weights = r / ((2 * noise_std) ** 2 + sums)
        g = A @ V @ A.mT @ weights + (2 * noise_std) ** 2 * weights
        length = ((r @ g) / (g @ g)).clamp(0, 1) if (r - g).norm() > r.norm() else 1.0
        u_hat = u_hat + length * (V @ A.mT @ weights).reshape(u.shape)
        z = rest[k] if k < len(rest) else torch.zeros_like(u)
        u = ddim(u, u_hat, z, a, a_next, eta)
    torch.testing.assert_close(ours, (u + 1) / 2, rtol=0, atol=1e-9)


def test_one_measured_number_is_matched_exactly() -> None:
    keep = torch.zeros(1, 1, 3, 4)
    keep[..., 1, 2] = 1
    prior, op = Dense(), Inpainting(keep)
    y: Tensor = op.A(prior.draw(2, (1, 3, 4)))
    run = (y, op, prior, 0.05, Noise(0, [0, 1]))
    tmpd = TMPD(8)(*run)
    mmps = MMPS(8, iterations=1)(y, op, prior, 0.05, Noise(0, [0, 1]))
    torch.testing.assert_close(tmpd, mmps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("noise_std", [0.0, 0.01])
@pytest.mark.parametrize("steps", [10, 50])
def test_row_sums_that_cancel_do_not_diverge(noise_std: float, steps: int) -> None:
    t = torch.arange(16).double()
    image = 0.5 + 0.3 * torch.cos(3 * t[:, None] * torch.pi / 8) * torch.cos(t * torch.pi / 2)
    prior = Texture.from_exemplar(image[None, None].float(), margin=0)
    shape = torch.Size((2, 1, 16, 16))
    z = torch.randn(prior.latent_shape(shape), generator=torch.Generator().manual_seed(1))
    x = prior.decode(z.double(), shape)
    for op in (Denoising(), Inpainting(random_keep((1, 1, 16, 16), 0.5))):
        y = op.A(x)
        found = TMPD(steps)(y, op, prior, noise_std, Noise(0, [0, 1]))
        assert (op.A(found) - y).square().mean().sqrt() < max(1.5 * noise_std, 0.005)
        assert (found - x).abs().max() < 0.2


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("steps", "index", "w2"),
    [
        pytest.param(20, 0, 0.15368, marks=SLOW),
        pytest.param(20, 1, 0.10075, marks=SLOW),
        (20, 2, 0.06359),
        pytest.param(20, 3, 0.07382, marks=SLOW),
        pytest.param(100, 0, 0.11416, marks=SLOW),
        pytest.param(100, 3, 0.03524, marks=SLOW),
    ],
)
def test_distance_to_the_posterior_is_as_computed_independently(
    steps: int, index: int, w2: float
) -> None:
    assert distance12(TMPD(steps, spacing="ddpm"), index) == pytest.approx(w2, rel=0.01)
