import deepinv
import torch
from contracts import check_operator

from genprior.operators.denoising import Denoising


def test_laws() -> None:
    generator = torch.Generator().manual_seed(0)
    check_operator(Denoising(), torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64))


def test_draws_no_noise() -> None:
    op = Denoising()
    x = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    assert torch.equal(op(x), x)
    assert torch.equal(state, torch.get_rng_state())
    assert op.is_identity
    assert isinstance(op, deepinv.physics.LinearPhysics)
