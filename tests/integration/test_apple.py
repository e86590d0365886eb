"""Devices without float64, such as the GPUs of Apple."""

import pytest
import torch

from genprior.core.metrics import crps
from genprior.inverse.baselines.biharmonic import Biharmonic
from genprior.inverse.baselines.interpolation import Bicubic
from genprior.inverse.baselines.wiener import Wiener
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.superres import SuperResolution


class Apple(torch.Tensor):
    """Tensor that raises the errors of the mps device until it is moved to the CPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.numpy:
            raise TypeError("can't convert mps:0 device type tensor to numpy")
        result = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.cpu:
            return result.as_subclass(torch.Tensor)
        if isinstance(result, Apple) and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return result


class OnMPS(Apple):
    """`Apple` tensor whose `device` is mps."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func == torch.Tensor.device.__get__:
            return torch.device("mps")
        return super().__torch_function__(func, types, args, kwargs)


def keep(channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(1, channels, 12, 12, generator=generator) > 0.3).float()


def photo() -> torch.Tensor:
    return torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method, operator", [
    (Biharmonic(), Inpainting(keep(1))),
    (Biharmonic(), Inpainting(keep(3))),
    (Wiener(), Blur(torch.ones(1, 1, 3, 3) / 9)),
    (Bicubic(), SuperResolution(2)),
])
def test_baselines_agree_with_the_cpu(method, operator):
    y, noise_std = operator.A(photo()), torch.tensor([0.1])
    expected = method.estimate(y, operator, noise_std)
    for name, buffer in list(operator.named_buffers()):
        operator.get_buffer(name).data = buffer.as_subclass(Apple)
    estimate = method.estimate(y.as_subclass(Apple), operator, noise_std)
    assert isinstance(estimate, Apple) and estimate.dtype == torch.float32
    torch.testing.assert_close(estimate.cpu(), expected)


@pytest.mark.parametrize("antithetic", [False, True])
def test_crps_agrees_with_the_cpu(antithetic):
    samples = torch.rand(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    references = samples.mean(dim=1)
    score = crps(samples.as_subclass(OnMPS), references.as_subclass(OnMPS), antithetic)
    assert isinstance(score, OnMPS)
    torch.testing.assert_close(score.cpu(), crps(samples, references, antithetic))
