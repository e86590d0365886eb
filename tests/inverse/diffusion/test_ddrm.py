import math

import pytest
import torch
from contracts import check_solver, dense, measure
from golden import distance, distance12
from oracles import Crooked, Replay, normals
from papers import alpha_bars, measurement, predict
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.ddrm import DDRM
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser

SLOW = pytest.mark.slow
GAUSS = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
OPERATORS = [
    Denoising(),
    Inpainting(random_keep((1, 1, 4, 6), 0.4)),
    Blur(torch.tensor([[1.0, 2, 4]]), "circular"),
    Blur(GAUSS, "reflect"),
    Blur(GAUSS, "valid"),
    SuperResolution(2),
]


def test_laws() -> None:
    names = ("inpainting", "circular blur", "superres", "denoising")
    check_solver(DDRM(steps=5), names)


def ddnm_plus(
    solver: DDRM, y: Tensor, op: Operator, prior: Denoiser, noise_std: float, draws: list[Tensor]
) -> Tensor:
    """DDNM+ in the notation of Wang et al., by a dense singular value decomposition."""
    z, *rest = draws
    levels, eta = alpha_bars(solver.steps), solver.eta
    A, v = dense(op, z), measurement(y, op, z).flatten()
    U, s, Vh = torch.linalg.svd(A, full_matrices=True)
    s = torch.cat([s, s.new_zeros(len(Vh) - len(s))])
    s = torch.where(s > 1e-9, s, 0)
    pinv, sigma_y = torch.linalg.pinv(A), 2 * noise_std
    level = sigma_y / s  # infinite where s is 0
    # the first state is DDRM's: data where they are cleaner than the noise
    a = levels[0]
    s_T = math.sqrt((1 - a) / a)
    known = (level <= s_T) & (s > 0)
    start = s_T * (Vh @ z.flatten())
    spread = (s_T**2 - level**2).clamp(min=0).sqrt()
    start = torch.where(known, Vh @ pinv @ v + spread * (Vh @ z.flatten()), start)
    u = a**0.5 * (Vh.T @ start).reshape(z.shape)
    for k, (a, a_s) in enumerate(zip(levels, levels[1:], strict=False)):
        u_0 = predict(prior, u, a)
        sigma_s, root = (1 - a_s) ** 0.5, a_s**0.5
        clean = (sigma_s >= root * level) & (s > 0)
        weak = torch.where(s > 0, s, 0) * sigma_s * (1 - eta**2) ** 0.5 / (root * sigma_y or 1)
        Lambda = torch.where(clean, 1, torch.where(s > 0, weak, 0))
        residual = pinv @ (A @ u_0.flatten() - v)
        u_hat = u_0.flatten() - Vh.T @ (Lambda * (Vh @ residual))
        left = (sigma_s**2 - (root * level) ** 2).clamp(min=0).sqrt()
        noise = torch.where(clean, left, eta * sigma_s)
        e = (Vh @ (u - a**0.5 * u_0).flatten()) / (1 - a) ** 0.5
        e = torch.where(s > 0, 0, (1 - eta**2) ** 0.5 * sigma_s * e)
        n = Vh @ rest[k].flatten() if k < len(rest) else torch.zeros_like(s)
        u = (root * u_hat + Vh.T @ (e + noise * n)).reshape(z.shape)
    return (u + 1) / 2


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: f"{type(op).__name__}")
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_it_is_ddnm_plus(op: Operator, noise_std: float) -> None:
    shape = op.image_shape(op.A(torch.zeros(1, 2, 4, 6)).shape)
    x, *draws = normals(6, *shape)
    y = measure(op, 0.5 + 0.2 * x, torch.tensor(noise_std))
    solver = DDRM(steps=5)
    ours = solver(y, op, Crooked(), noise_std, Replay(draws))
    theirs = ddnm_plus(solver, y, op, Crooked(), noise_std, draws)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "eta", "noise_std", "expected"),
    [
        (20, 0.85, 0.05, (0.0730, 0.0317, 0.288)),
        (20, 1.0, 0.2, (0.0846, 0.0566, 0.510)),
        pytest.param(100, 0.85, 0.01, (0.0668, 0.0505, 0.281), marks=SLOW),
        pytest.param(100, 1.0, 0.05, (0.0652, 0.0529, 0.610), marks=SLOW),
    ],
)
def test_distance_to_the_posterior_is_as_computed_independently(
    steps: int, eta: float, noise_std: float, expected: tuple[float, float, float]
) -> None:
    found = distance(DDRM(steps, eta), noise_std)
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("index", "w2"),
    [
        pytest.param(0, 0.07467, marks=SLOW),
        (1, 0.12433),
        pytest.param(2, 0.19005, marks=SLOW),
        (3, 0.06874),
    ],
)
def test_distance_for_four_operators(index: int, w2: float) -> None:
    assert distance12(DDRM(20), index) == pytest.approx(w2, rel=0.01)


def test_operators_without_singular_vectors_are_refused() -> None:
    op = Blur(torch.tensor([[1.0, 2], [0, 1]]), "valid")
    with pytest.raises(ValueError, match="singular vectors of Blur are not known: this solver ta"):
        DDRM(2)(torch.zeros(1, 1, 4, 4), op, Crooked(), 0.1, Noise(0, [0]))


def test_data_are_weighted_by_eta_b_only_above_their_noise() -> None:
    """The three cases of Kawar et al. with s = 1, where eta_b < 1 matters."""
    prior, y, noise_std, eta, eta_b = Crooked(), normals(1, 1, 1, 3, 4)[0], 0.4, 0.6, 0.5
    solver = DDRM(steps=12, eta=eta, eta_b=eta_b)
    draws = list(normals(12, 1, 1, 3, 4, seed=3))
    ours = solver(y, Denoising(), prior, noise_std, Replay(list(draws)))
    first, *rest = draws
    levels = [*solver.sigmas, 0.0]
    assert any(eta_b * noise_std < level < noise_std for level in levels)
    x = y + (levels[0] ** 2 - noise_std**2) ** 0.5 * first
    for k, (level, t) in enumerate(zip(levels, levels[1:], strict=False)):
        D, n = prior.denoise(x, level), rest[k] if k < len(rest) else torch.zeros_like(x)
        if t < noise_std:
            x = D + (1 - eta**2) ** 0.5 * t * (y - D) / noise_std + eta * t * n
        else:
            left = (t**2 - (eta_b * noise_std) ** 2) ** 0.5
            x = (1 - eta_b) * D + eta_b * y + left * n
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-10)
