"""Operators and priors of genprior inside deepinv."""

import pickle

import deepinv
import pytest
import torch
from oracles import Dense
from torch import Tensor

from genprior import to_deepinv
from genprior.core.random_streams import Noise
from genprior.integrations.deepinv import decomposable
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.jpeg import JPEG
from genprior.operators.masks import random_keep
from genprior.operators.phase_retrieval import PhaseRetrieval
from genprior.operators.superres import SuperResolution

KERNEL = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)).double()
OPERATORS = [
    Denoising(), Inpainting(random_keep((1, 1, 8, 8), 0.5)), Blur(KERNEL, "valid"),
    Blur(KERNEL, "circular"), Blur(KERNEL, "reflect"), SuperResolution(2),
]


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda op: type(op).__name__)
def test_an_operator_is_a_linear_physics_with_its_own_solves(operator: Operator) -> None:
    physics = to_deepinv(operator)
    assert isinstance(physics, deepinv.physics.LinearPhysics)
    x, z = draw(2, 3, 8, 8), draw(2, 3, 8, 8, seed=1)
    y = physics(x)  # without noise
    assert torch.equal(y, operator.A(x))
    assert torch.equal(physics.A_adjoint(y), operator.A_adjoint(y))
    assert torch.equal(physics.A_dagger(y), operator.pinv(y))
    for gamma in (1.5, 0.25):
        expected = operator.prox(z, y, 1 / gamma)
        assert torch.equal(physics.prox_l2(z, y, gamma), expected)
        data_term = deepinv.optim.L2()
        torch.testing.assert_close(data_term.prox(z, y, physics, gamma=gamma), expected)
    assert torch.equal(physics.prox_l2(None, y, 1.0), operator.prox(0 * z, y, 1.0))
    assert physics.adjointness_test(x).abs() < 1e-4


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda op: type(op).__name__)
def test_the_physics_of_deepinv_measures_the_same(operator: Operator) -> None:
    x = draw(2, 3, 8, 8).float()
    physics = decomposable(operator, x.shape[1:])
    torch.testing.assert_close(physics.A(x), operator.A(x), rtol=0, atol=1e-5)
    known = isinstance(operator, Denoising | Inpainting) or (
        isinstance(operator, Blur) and operator.boundary == "circular"
    )
    assert isinstance(physics, deepinv.physics.DecomposablePhysics) == known


def test_a_prior_is_a_denoiser() -> None:
    prior, x = Dense(), draw(2, 3, 8, 8)
    model = to_deepinv(prior)
    assert isinstance(model, deepinv.models.Denoiser)
    torch.testing.assert_close(model(x, 0.1), prior.denoise(x, 0.1))
    levels = torch.tensor([0.1, 0.3], dtype=torch.float64)
    torch.testing.assert_close(model(x, levels), prior.denoise(x, levels))
    assert model(x, 0.0).isfinite().all()
    assert not list(model.parameters())


def test_a_plug_and_play_method_of_deepinv_finds_the_posterior_mode() -> None:
    prior, operator = Dense(dtype=torch.float64), Inpainting(random_keep((1, 1, 8, 8), 0.5))
    noise = 0.1 * Noise(0, [0]).normal(draw(1, 3, 8, 8))
    y = operator.A(draw(1, 3, 8, 8) + noise)
    term = deepinv.optim.PnP(denoiser=to_deepinv(prior))
    method = deepinv.optim.optim_builder(
        "PGD", prior=term, data_fidelity=deepinv.optim.L2(), max_iter=300, early_stop=False,
        params_algo={"stepsize": 1.0, "g_param": 0.2},
    )
    x = method(y, to_deepinv(operator))
    known = operator.mask_unmeasured(torch.ones_like(y)) > 0
    fixed = prior.denoise(torch.where(known, y, x), 0.2)  # x = D(x - A^T (A x - y))
    torch.testing.assert_close(x, fixed, rtol=0, atol=1e-5)


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda op: type(op).__name__)
def test_operators_can_be_pickled(operator: Operator) -> None:
    x = draw(2, 3, 8, 8)
    operator.prox(x, operator.A(x), 0.1)  # fills its caches
    copied = pickle.loads(pickle.dumps(operator))
    assert torch.equal(copied.A(x), operator.A(x))
    assert torch.equal(copied.pinv(copied.A(x)), operator.pinv(operator.A(x)))


def test_an_operator_that_is_not_linear_is_a_physics_with_a_derivative() -> None:
    op, x = PhaseRetrieval(), draw(2, 1, 5, 6)
    physics = to_deepinv(op)
    assert isinstance(physics, deepinv.physics.Physics)
    assert not isinstance(physics, deepinv.physics.LinearPhysics)
    y = physics(x)
    torch.testing.assert_close(y, op.A(x))
    leaf = x.clone().requires_grad_()
    fidelity = deepinv.optim.L2()
    slope = torch.autograd.grad(fidelity.fn(leaf, y + 0.1, physics).sum(), leaf)[0]
    torch.testing.assert_close(fidelity.grad(x, y + 0.1, physics), slope)
    torch.testing.assert_close(physics.A_dagger(y), op.pinv(y))
    with pytest.raises(TypeError, match="JPEG rounds numbers, and the physics of deepinv have"):
        to_deepinv(JPEG(30))
