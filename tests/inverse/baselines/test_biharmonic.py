import pytest
import torch
from skimage.restoration import inpaint_biharmonic

from genprior.api.restoration import restore
from genprior.inverse.baselines.biharmonic import Biharmonic
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting


def test_a_cubic_surface_is_filled_exactly_away_from_the_border():
    # A cubic solves Delta^2 x = 0, and is the only solution with its values around the hole.
    t = torch.linspace(0, 1, 24, dtype=torch.float64)
    surface = 0.2 + 0.5 * t[:, None] ** 3 - 0.3 * t[:, None] * t + 0.2 * t**2
    keep = torch.ones(1, 1, 24, 24)
    keep[..., 9:13, 10:15] = 0
    x = surface[None, None]
    result = restore(x * keep, Inpainting(keep), None, Biharmonic()).image
    assert torch.allclose(result, x, rtol=0, atol=1e-6)


def test_channels_with_holes_of_their_own():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 9, 10, generator=generator)
    keep = torch.rand(2, 3, 9, 10, generator=generator) > 0.3
    operator = Inpainting(keep)
    result = restore(operator.A(x), operator, None, Biharmonic()).image
    for i in range(2):
        for c in range(3):
            y = operator.A(x)[i, c].double().numpy()
            expected = inpaint_biharmonic(y, ~keep[i, c].numpy())
            assert torch.allclose(result[i, c].double(), torch.from_numpy(expected), atol=1e-6)


def test_another_operator_is_refused():
    with pytest.raises(ValueError, match="Biharmonic is not made for a measurement by Denoising"):
        restore(torch.rand(1, 3, 8, 8), Denoising(), None, Biharmonic())


def test_the_memory_format_does_not_matter():
    x = torch.rand(1, 3, 9, 10, generator=torch.Generator().manual_seed(0))
    keep = torch.rand(1, 1, 9, 10, generator=torch.Generator().manual_seed(1)) > 0.3
    operator, last = Inpainting(keep), x.to(memory_format=torch.channels_last)
    expected = restore(operator.A(x), operator, None, Biharmonic()).image
    assert torch.equal(restore(operator.A(last), operator, None, Biharmonic()).image, expected)
