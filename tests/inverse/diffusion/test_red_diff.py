import pytest
import torch
from contracts import check_solver, dense, measure
from golden import field64
from oracles import Crooked, Replay, Stationary, normals
from papers import alpha_bars, measurement, predict

from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.red_diff import REDDiff
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution


def test_laws() -> None:
    check_solver(REDDiff(steps=3), seeded=True)


@pytest.mark.parametrize(
    "op",
    [Inpainting(random_keep((1, 1, 4, 6), 0.4)), SuperResolution(2)],
    ids=lambda op: type(op).__name__,
)
def test_agrees_with_the_paper_in_its_own_notation(op: Operator) -> None:
    steps, weight, rate = 5, 0.4, 0.03
    x, *draws = normals(6, 1, 3, 4, 6)
    y = measure(op, 0.5 + 0.2 * x, torch.tensor(0.1))
    solver = REDDiff(steps, weight, rate / 2)
    lambda_ = weight * y[0].numel() / x[0].numel()
    ours = solver(y, op, Crooked(), 0.1, Replay(draws))

    A = dense(op, x)
    damped = A.mT @ A + 0.04 * torch.eye(A.shape[1]).double()
    start = torch.linalg.solve(damped, A.mT @ y.flatten() + 0.04 * 0.5)
    mu = (2 * start.reshape(x.shape) - 1).requires_grad_()
    v = measurement(y, op, mu.detach())
    adam = torch.optim.Adam([mu], rate, betas=(0.9, 0.99), eps=2e-8)
    for a, e in zip(alpha_bars(steps)[:-1], draws, strict=True):
        u_t = (a**0.5 * mu + (1 - a) ** 0.5 * e).detach()
        eps = (u_t - a**0.5 * predict(Crooked(), u_t, a)) / (1 - a) ** 0.5
        loss = (op.A(mu) - v).square().sum() / 2
        loss = loss + lambda_ * ((1 - a) / a) ** 0.5 * ((eps - e) * mu).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(ours, (mu.detach() + 1) / 2, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_distance_to_the_posterior_mean_is_as_computed_independently() -> None:
    S, h = field64()
    kernel = torch.fft.ifft2(h).real.roll((32, 32), dims=(0, 1))
    op, prior, noise_std, num_samples = Blur(kernel, "circular"), Stationary(S / 4), 0.025, 8
    white, n = normals(2, 4, 1, 64, 64)
    x = 0.5 + torch.fft.ifft2((S / 4).sqrt() * torch.fft.fft2(white)).real
    y = op.A(x) + noise_std * n
    gain = h * S / (h**2 * S + 0.05**2)
    exact = 0.5 + torch.fft.ifft2(gain * torch.fft.fft2(y - 0.5)).real
    keys = [(i, k) for k in range(num_samples) for i in range(4)]
    # lambda 0.25 and rate 0.1 on [-1, 1]
    mu = REDDiff(1000)(y.repeat(num_samples, 1, 1, 1), op, prior, noise_std, Noise(0, keys))
    mu = mu.unflatten(0, (num_samples, 4))
    jitter = mu.var(dim=0)
    error2 = (mu.mean(dim=0) - exact).square() - jitter / num_samples
    assert 2 * error2.mean().sqrt().item() == pytest.approx(0.032, rel=0.05)
    posterior = S * 0.05**2 / (h**2 * S + 0.05**2)
    ratio = 4 * jitter.mean() / posterior.mean()
    assert ratio.item() == pytest.approx(0.44, rel=0.05)
