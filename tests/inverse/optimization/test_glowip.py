import pytest
import torch
from linear import linear, posterior_means, relative_error
from oracles import Dense, normals
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.optimization.glowip import GlowIP
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.base import Decoder

NOISE = Noise(0, [0, 1, 2])


def test_without_noise_and_penalty_the_start_regularises() -> None:
    # from z = 0 the descent stays in the row space: the limit of small noise
    prior, S = linear((3, 5, 6), floor=0.05)
    op = Inpainting(random_keep((3, 1, 5, 6), 0.5))
    y = op.A(Dense().draw(3, (3, 5, 6)))
    exact = posterior_means(op, S, y, torch.full((3,), 1e-6), 0.4)
    x = GlowIP(200)(y, op, prior, 0.0, NOISE)
    assert relative_error(x, exact, 0.4) < 1e-4


@pytest.mark.parametrize("gamma", [0.05, 1.0])
def test_the_penalty_of_the_paper_shrinks_an_identity(gamma: float) -> None:
    # argmin |z - y|^2 + gamma |z| = y max(0, 1 - gamma / (2 |y|))
    class Identity(Decoder):
        def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
            return tuple(image_shape)

        def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
            return z

    y = normals(1, 3, 1, 3, 4)[0] * torch.tensor([1.0, 0.3, 0.05]).reshape(3, 1, 1, 1)
    length = y.flatten(1).norm(dim=1).reshape(3, 1, 1, 1)
    exact = y * (1 - gamma / (2 * length)).clamp(min=0)
    x = GlowIP(200, penalty=gamma, power=1)(y, Denoising(), Identity(), 0.1, NOISE)
    torch.testing.assert_close(x, exact, rtol=0, atol=2e-2)


def test_penalties_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="power must be 1 or 2, got 3"):
        GlowIP(power=3)
    with pytest.raises(ValueError, match="penalty must be >= 0"):
        GlowIP(penalty=-1.0)
