import numpy as np
import pytest
import torch

from genprior.inverse.latent.schedule import ddpm_levels, gradient, norms, signal


def test_levels_are_those_of_ddpm() -> None:
    a = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    levels = ddpm_levels(1000)
    assert [signal(s) for s in levels] == pytest.approx(a[::-1].tolist(), rel=1e-9)


def test_gradients_are_per_image_and_zero_norms_have_none() -> None:
    z = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).double()
    slope, other = gradient(lambda z: (norms(z), 2 * z), z)
    torch.testing.assert_close(slope, torch.tensor([[0.6, 0.8], [0.0, 0.0]]).double())
    assert torch.equal(other, 2 * z) and not other.requires_grad
