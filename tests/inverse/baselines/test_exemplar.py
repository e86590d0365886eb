import pytest
import torch

from genprior.api.restoration import restore
from genprior.inverse.baselines.exemplar import Exemplar
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting


def test_an_image_of_a_batch_is_filled_as_it_is_alone() -> None:
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    keep = torch.ones(2, 1, 24, 24)
    keep[0, :, 8:14, 8:14] = keep[1, :, 4:12, 10:16] = 0
    operator = Inpainting(keep)
    both = restore(operator.A(x), operator, None, Exemplar(), seed=3).image
    alone = restore(operator.A(x)[1:], operator.select([1]), None, Exemplar(), seed=3, index=1)
    assert torch.equal(both[1:], alone.image)
    assert torch.equal(operator.A(both), operator.A(x))


def test_known_channels_of_a_pixel_are_kept() -> None:
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    keep = torch.ones(1, 3, 24, 24)
    keep[:, 1, 8:14, 8:14] = 0
    operator = Inpainting(keep)
    filled = restore(operator.A(x), operator, None, Exemplar()).image
    assert torch.equal(operator.A(filled), operator.A(x))
    assert (filled[:, 1, 8:14, 8:14] > 0).all()


def test_another_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="Exemplar is not made for a measurement by Denoising"):
        restore(torch.rand(1, 3, 8, 8), Denoising(), None, Exemplar())
