import pytest
import torch
from oracles import Dense, normals
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.optimization.csgm import CSGM
from genprior.inverse.optimization.iagan import IAGAN
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.base import Decoder
from genprior.priors.gan import GAN

NOISE = Noise(0, [0, 1, 2])


def generator() -> GAN:
    torch.manual_seed(0)
    return GAN(1, 3, (4, 6)).eval().requires_grad_(False)


def problem() -> tuple[Inpainting, Tensor]:
    op = Inpainting(random_keep((3, 1, 8, 8), 0.5, Noise(0, [0, 1, 2]).generators))
    return op, op.A(torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)))


def test_weights_that_adapt_fit_the_data_better() -> None:
    (op, y), prior = problem(), generator()
    before = [p.clone() for p in prior.parameters()]
    csgm = CSGM(20, restarts=2, optimiser="lbfgs")(y, op, prior, 0.1, NOISE)
    x = IAGAN(20, restarts=2, refinements=60, weight_rate=1e-2, smooth=0)(y, op, prior, 0.1, NOISE)
    fits = [(op.A(v) - y).flatten(1).square().sum(dim=1) for v in (csgm, x)]
    assert (fits[1] < 0.5 * fits[0]).all()
    assert all(map(torch.equal, before, prior.parameters()))
    assert not any(p.requires_grad or p.grad is not None for p in prior.parameters())


def test_without_refinement_it_is_csgm_moved_towards_the_data() -> None:
    (op, y), prior, sigma = problem(), generator(), 0.1
    known = op.mask.bool()
    csgm = CSGM(20, restarts=2, optimiser="lbfgs")(y, op, prior, sigma, Noise(0, [0, 1, 2]))
    x = IAGAN(20, restarts=2, refinements=0, smooth=0)(y, op, prior, sigma, Noise(0, [0, 1, 2]))
    torch.testing.assert_close(x[~known], csgm[~known], rtol=0, atol=1e-6)
    rest, moved = (y - csgm)[known].reshape(3, -1), (x - csgm)[known].reshape(3, -1)
    errors = rest.square().mean(dim=1)
    for i in range(3):
        # the share of the noise of that whole error is left; the gain of a mask is 1 on average
        share = (1 - sigma**2 / errors[i]) / (moved[i] / rest[i]).mean()
        assert share.item() == pytest.approx(1, abs=0.3)
        assert (moved[i] / rest[i]).std() < 1e-3


def test_the_tikhonov_solution_decides_what_the_data_leave_open() -> None:
    # identity generator, one hole: the data do not tell its pixels, their random start stays
    prior = Dense(length=0)
    x = torch.full((1, 1, 8, 8), 0.7).double()
    op = Inpainting(torch.ones(1, 1, 8, 8).double().index_fill_(2, torch.arange(3, 6), 0))
    found = [
        IAGAN(60, refinements=40, weight_rate=1e-9, smooth=smooth)(
            op.A(x), op, prior, 0.0, Noise(0, [0])
        )
        for smooth in (0, 1)
    ]
    errors = [(v - x).abs().max().item() for v in found]
    assert errors[1] < 0.02 and errors[0] > 0.1


def test_the_noise_level_stops_the_descent() -> None:
    (op, y), prior, sigma = problem(), generator(), 0.25
    solver = IAGAN(5, restarts=1, refinements=120, weight_rate=1e-2)
    x = solver(y, op, prior, sigma, Noise(0, [0, 1, 2]))
    fit = (op.A(x) - y).flatten(1).square().sum(dim=1) / op.num_measurements(y)
    assert ((fit <= sigma**2) & (fit > 0.8 * sigma**2)).all()


def test_without_noise_the_data_are_explained_exactly() -> None:
    (op, y), prior = problem(), generator()
    sigma = torch.tensor([0.0, 0.2, 0.0])
    x = IAGAN(5, restarts=1, refinements=5)(y, op, prior, sigma, NOISE)
    error = (op.A(x) - y).flatten(1).abs().amax(dim=1)
    assert (error[[0, 2]] < 1e-6).all() and error[1] > 1e-3


def test_an_image_does_not_depend_on_its_batch() -> None:
    (op, y), prior = problem(), generator()
    solver = IAGAN(5, restarts=2, refinements=5)
    together = solver(y, op, prior, 0.1, Noise(0, [0, 1, 2]))
    alone = solver(y[2:], op.select([2]), prior, 0.1, Noise(0, [2]))
    torch.testing.assert_close(alone[0], together[2], rtol=0, atol=1e-5)


def test_a_linear_generator_learns_its_mean() -> None:
    # all pixels are shifted alike by the one weight of `Dense`
    prior = Dense()
    op, shift = Inpainting(random_keep((1, 1, 4, 4), 0.3)), 0.3
    y = op.A(prior.draw(1, (1, 4, 4)) + shift + 0.01 * normals(1, 1, 1, 4, 4)[0])
    solver = IAGAN(200, restarts=1, penalty=10.0, refinements=400, latent_rate=1e-9,
                   weight_rate=5e-3)
    x = solver(y, op, prior, 1e-6, Noise(0, [0]))
    rest = op.mask_unmeasured(x - y)
    assert abs(rest.sum().item()) < 1e-3 * rest.abs().sum().item() + 1e-6


def test_errors() -> None:
    with pytest.raises(ValueError, match="refinements >= 0, got 1 and -1"):
        IAGAN(refinements=-1)
    with pytest.raises(ValueError, match="latent_rate and weight_rate must be > 0"):
        IAGAN(weight_rate=0)

    class Function(Decoder):
        def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
            return tuple(image_shape)

        def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
            return z

    op, y = problem()
    with pytest.raises(TypeError, match="weights of a module, and Function has none: choose csgm"):
        IAGAN()(y, op, Function(), 0.1, NOISE)
