import pytest
import torch

from genprior.api.restoration import restore
from genprior.inverse.baselines.identity import Measurement
from genprior.operators.blur import Blur
from genprior.operators.clipping import Clipping
from genprior.operators.denoising import Denoising
from genprior.operators.phase_retrieval import PhaseRetrieval


def test_the_measurement_comes_back_where_it_is_an_image():
    y = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    result = restore(y, Denoising(), None, Measurement(), noise_std=0.1)
    assert torch.equal(result.image, y) and result.nfe == 0


def test_another_operator_is_refused():
    with pytest.raises(ValueError, match="Measurement is not made for a measurement by Blur"):
        restore(torch.rand(1, 3, 8, 8), Blur(torch.ones(3, 3)), None, Measurement())


@pytest.mark.parametrize("operator", [Clipping(), PhaseRetrieval()])
def test_for_an_operator_that_is_not_linear_it_is_the_start_of_solvers(operator):
    x = torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(0))
    y = operator.A(x)
    image = restore(y, operator, None, Measurement()).image
    assert torch.equal(image, operator.expansion_point(y).clamp(0, 1))
    assert image.shape == x.shape
