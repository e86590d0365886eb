import pytest
import torch
from contracts import check_solver, measure
from golden import distance
from oracles import Dense, normals

from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.jfps import JFPS
from genprior.inverse.diffusion.mmps import MMPS
from genprior.inverse.diffusion.photo_covariance import PHOTO_VAR, photo_filter
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.texture import Texture


@pytest.mark.parametrize("covariance", ["photos", "isotropic"])
def test_laws(covariance: str) -> None:
    # few iterations: after convergence, without noise, rounding errors would grow
    check_solver(JFPS(3, covariance=covariance, iterations=2))


@pytest.mark.parametrize(
    "op",
    [Inpainting(random_keep((1, 1, 6, 8), 0.4)), SuperResolution(2)],
    ids=lambda op: type(op).__name__,
)
def test_with_the_covariance_of_the_prior_it_is_moment_matching(op: Operator) -> None:
    texton = normals(1, 2, 4, 4)[0] / 20
    prior = Texture(texton, torch.tensor([0.4, 0.6]).double(), margin=0, floor=0.05)
    y = measure(op, 0.5 + 0.2 * normals(1, 2, 2, 6, 8)[0], torch.tensor(0.03))
    run = (y, op, prior, 0.03)
    jfps = JFPS(6, covariance=prior, iterations=96)(*run, Noise(0, [0, 1]))
    mmps = MMPS(6, iterations=96)(*run, Noise(0, [0, 1]))
    torch.testing.assert_close(jfps, mmps, rtol=0, atol=1e-9)


def test_the_model_of_photos_has_its_variance_and_colour_correlation() -> None:
    unit = torch.eye(3 * 5 * 6).double().reshape(-1, 3, 5, 6)
    S = photo_filter(unit, lambda S: S)(unit).flatten(1)
    torch.testing.assert_close(S.diagonal(), torch.full((90,), PHOTO_VAR).double())
    torch.testing.assert_close(S, S.T)
    same_place = S.reshape(3, 30, 3, 30).diagonal(dim1=1, dim2=3).mean(dim=2)
    assert same_place[0, 1].item() == pytest.approx(0.9 * PHOTO_VAR)
    assert torch.linalg.eigvalsh(S).min() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise_std", "expected"),
    [
        (0.01, (0.0234, 0.0134, 0.642)),
        (0.05, (0.0226, 0.0107, 0.717)),
        (0.2, (0.0253, 0.0162, 0.851)),
    ],
)
def test_distance_to_the_posterior_is_as_computed_independently(
    noise_std: float, expected: tuple[float, float, float]
) -> None:
    # for this covariance the preconditioner is the exact solve: one iteration suffices
    solver = JFPS(100, 1.0, "isotropic", 0.0625, 3, spacing="ddpm")
    assert distance(solver, noise_std) == pytest.approx(expected, rel=0.01)


def test_errors() -> None:
    with pytest.raises(ValueError, match="Gaussian prior, 'photos' or 'isotropic', got 'dct'"):
        JFPS(covariance="dct")


def test_only_the_denoiser_is_evaluated() -> None:
    prior = Dense()
    op = Inpainting(random_keep((1, 1, 4, 5), 0.5))
    y = op.A(prior.draw(1, (1, 4, 5)))
    prior.calls.clear()
    JFPS(5)(y, op, prior, 0.0, Noise(0, [0]))
    assert len(prior.calls) == 5 and JFPS(5).jacobian_products == 0


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_the_covariance_of_photos_given_the_noisy_image(sigma: float) -> None:
    unit = torch.eye(3 * 5 * 6).double().reshape(-1, 3, 5, 6)
    S = photo_filter(unit, lambda S: S)(unit).flatten(1)
    expected = (S.inverse() + torch.eye(len(S)).double() / sigma**2).inverse()
    found = JFPS()._cov(unit, sigma)(unit).flatten(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", ["reflect", "valid"])
def test_noise_free_blurred_data_are_matched_at_the_defaults(boundary: str) -> None:
    op = Blur(torch.tensor([[1.0, 2, 1]]), boundary)
    y = op.A(0.5 + 0.2 * normals(1, 2, 1, 16, 16)[0].float())
    x = JFPS(30)(y, op, Dense(dtype=torch.float32), 0.0, Noise(0, [0, 1]))
    assert (op.A(x) - y).square().mean().sqrt() < 1e-5
