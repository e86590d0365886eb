import pytest
import torch
from contracts import check_operator
from oracles import Dense

from genprior.api.restoration import restore
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


@pytest.mark.parametrize("solver", ["hqs", "moment-matched", "dps", "pnp-dm"])
def test_an_image_without_noise_is_returned_unchanged(solver: str) -> None:
    y = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    x = restore(y, Denoising(), Dense(dtype=torch.float32), solver, [0.0, 0.1], steps=4).image
    assert torch.equal(x[0], y[0])
    assert not torch.allclose(x[1], y[1], atol=1e-3)
